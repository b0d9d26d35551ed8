//! Where a program's output comes from: a pipe, or a file that outlives the supervisor.
//!
//! A file is read as it grows, which the kernel tells. What was taken in is given back to the file system by punching a hole, so the file of a
//! program that runs for months stays small although its offsets grow: bytes are never moved, and a
//! writer is never in the way.

use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use tokio::net::unix::pipe;

use crate::watcher::{Watch, Watcher};

/// Bytes taken at a time.
const CHUNK: usize = 1 << 16;
/// Bytes taken in before they are given back to the file system.
const GIVE_BACK: u64 = 1 << 20;

/// One of a program's two outputs.
#[derive(Debug)]
pub(crate) enum Source {
    /// The program's end is closed with the program.
    Pipe(pipe::Receiver),
    /// A file that grows.
    Spool(Spool),
    /// Nothing more comes.
    Closed,
}

impl Source {
    /// A pipe: the source, and the end for the program.
    pub(crate) fn pipe() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        Ok((Self::Pipe(pipe::Receiver::from_owned_fd(reader.into())?), writer.into()))
    }

    /// The next bytes; waits for them, and forever when none can come.
    pub(crate) async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self {
                Self::Pipe(pipe) => pipe.readable().await?,
                Self::Spool(spool) => spool.changed().await?,
                Self::Closed => pending().await,
            }
            let bytes = self.rest()?;
            if !bytes.is_empty() {
                return Ok(bytes);
            }
        }
    }

    /// What is there now, or some of it; empty when there is nothing.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; CHUNK];
        let n = match self {
            Self::Pipe(pipe) => match pipe.try_read(&mut bytes) {
                Ok(0) => {
                    *self = Self::Closed;
                    0
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                n => n?,
            },
            Self::Spool(spool) => spool.read(&mut bytes)?,
            Self::Closed => 0,
        };
        bytes.truncate(n);
        Ok(bytes)
    }
}

/// A file that a program writes and that is read behind it.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    /// Read up to here.
    at: u64,
    /// Given back up to here.
    freed: u64,
    watch: Watch,
}

impl Spool {
    /// Reads `path` from `at` on.
    pub(crate) fn open(path: &Path, at: u64, watcher: &Arc<Watcher>) -> io::Result<Self> {
        // Watched before it is read, so that no growth between the two is missed.
        let watch = watcher.watch(path)?;
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self { file, at, freed: at, watch })
    }

    /// Waits until there may be more. What is there already is more.
    async fn changed(&self) -> io::Result<()> {
        if self.file.metadata()?.len() <= self.at {
            self.watch.changed().await;
        }
        Ok(())
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(bytes, self.at)?;
        self.at += n as u64;
        Ok(n)
    }

    /// Gives what lies before `taken` back to the file system.
    pub(crate) fn forget(&mut self, taken: u64) {
        if taken < self.freed + GIVE_BACK {
            return;
        }
        // From the very beginning, for the first whole block may begin before `freed`.
        if let Err(error) = punch(&self.file, taken) {
            tracing::warn!(
                "cannot give the output that was read back to the file system, it is kept: {error}"
            );
        }
        self.freed = taken;
    }
}

#[cfg(target_os = "linux")]
fn punch(file: &File, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, hole, 0, length)?)
}

#[cfg(not(target_os = "linux"))]
fn punch(_: &File, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
