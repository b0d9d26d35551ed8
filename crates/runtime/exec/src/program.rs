//! A running program: a process group with a leader, started here or taken over.
//!
//! The end of a leader is heard on a process handle, without a thread and without polling. A leader
//! that was started here is collected only after the rest of its group was killed: until then its
//! number cannot belong to anybody else. (Where there are no process handles, it is collected first,
//! and the rest of its group killed a moment later.) Of a program that was taken over, the group is
//! found by the run's mark.

use std::io;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::handle::Handle;
use crate::proc::{self, Identity};

/// A program that is watched. Dropped before its end, it is killed with all its group.
#[derive(Debug)]
pub(crate) struct Program {
    run: String,
    leader: Identity,
    origin: Origin,
    ended: bool,
}

#[derive(Debug)]
enum Origin {
    Started(Child, Option<Handle>),
    TakenOver(Handle),
    /// Its leader had ended before anybody looked, in this boot or, if `elsewhere`, in another.
    Ended {
        elsewhere: bool,
    },
}

impl Program {
    /// Starts `command` as the leader of a group of its own.
    pub(crate) fn start(mut command: Command, run: &str) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        let number = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = number.ok_or_else(|| io::Error::other("a new process has no number"))?;
        let origin = Origin::Started(child, Handle::open(pid).ok());
        let pid = pid.as_raw_nonzero().get();
        // Where it cannot be told, a later supervisor finds the group by the run's mark.
        let leader = Identity::of(pid).unwrap_or(Identity { pid, started: 0 });
        Ok(Self { run: run.to_owned(), leader, origin, ended: false })
    }

    /// Watches a program that another supervisor started; `None` when it has ended.
    pub(crate) fn take_over(leader: Identity, run: &str) -> Option<Self> {
        let origin = Origin::TakenOver(leader.open()?);
        Some(Self { run: run.to_owned(), leader, origin, ended: false })
    }

    /// What is left of a program whose leader has ended: others of its group, perhaps, unless it ran
    /// in another boot.
    pub(crate) fn ended(leader: Identity, run: &str, elsewhere: bool) -> Self {
        Self { run: run.to_owned(), leader, origin: Origin::Ended { elsewhere }, ended: false }
    }

    pub(crate) const fn leader(&self) -> Identity {
        self.leader
    }

    /// Waits until the leader has ended.
    pub(crate) async fn exited(&mut self) -> io::Result<()> {
        match &mut self.origin {
            Origin::Started(_, Some(handle)) | Origin::TakenOver(handle) => handle.ended().await,
            Origin::Started(child, None) => child.wait().await.map(drop),
            Origin::Ended { .. } => Ok(()),
        }
    }

    /// Asks every process of the group to end. A stopped one is woken to hear it.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
    }

    /// Ends every process of the group.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        match &self.origin {
            Origin::Started(..) => {
                if let Some(group) = Pid::from_raw(self.leader.pid) {
                    report(kill_process_group(group, signal), &self.run);
                }
            }
            Origin::TakenOver(_) => {
                self.signal_members(self.leader, signal);
            }
            Origin::Ended { elsewhere: true } => {}
            // Its number may be another process's by now.
            Origin::Ended { elsewhere: false } => {
                self.signal_members(Identity { started: 0, ..self.leader }, signal);
            }
        }
    }

    fn signal_members(&self, leader: Identity, signal: Signal) {
        for (_, handle) in proc::members(leader, &self.run) {
            report(handle.signal(signal), &self.run);
        }
    }

    /// After the leader has ended: kills what is left of the group, and collects the leader. A
    /// program that was taken over tells its status to somebody else.
    pub(crate) async fn finish(&mut self) -> io::Result<Option<ExitStatus>> {
        self.kill();
        self.ended = true;
        match &mut self.origin {
            Origin::Started(child, _) => child.wait().await.map(Some),
            Origin::TakenOver(_) | Origin::Ended { .. } => Ok(None),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.ended {
            // The leader is not collected yet. The runtime does that once it is dead.
            self.kill();
        }
    }
}

/// A group without members is what one wants; other refusals are odd enough to be told.
pub(crate) fn report(sent: rustix::io::Result<()>, run: &str) {
    if let Err(error) = sent
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!("cannot signal the program of run {run}: {error}");
    }
}
