//! A handle on a process: it stays with that process, whatever becomes of its number. Linux has
//! them (process file descriptors); where there are none, a program that was started here is watched
//! the ordinary way, and no other is touched.

#[cfg(target_os = "linux")]
pub(crate) use linux::{Handle, wait_on};
#[cfg(not(target_os = "linux"))]
pub(crate) use none::Handle;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// A process.
    #[derive(Debug)]
    pub(crate) struct Handle(AsyncFd<OwnedFd>);

    impl Handle {
        /// On the process that has this number now.
        pub(crate) fn open(pid: Pid) -> io::Result<Self> {
            wait_on(pidfd_open(pid, PidfdFlags::NONBLOCK)?).map(Self)
        }

        /// Waits until the process has ended.
        pub(crate) async fn ended(&self) -> io::Result<()> {
            // Readiness is not cleared: a process ends once.
            self.0.readable().await.map(drop)
        }

        /// Sends a signal to the process alone.
        pub(crate) fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
            pidfd_send_signal(&self.0, signal)
        }
    }

    /// Makes a descriptor one that can be waited for.
    #[expect(
        deprecated,
        reason = "its successor is an unsafe function, for types that may close their descriptor \
                  early; an `OwnedFd` does not"
    )]
    pub(crate) fn wait_on(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
        AsyncFd::with_interest(descriptor, Interest::READABLE)
    }
}

#[cfg(not(target_os = "linux"))]
mod none {
    use std::io;

    use rustix::process::{Pid, Signal};

    /// There is none.
    #[derive(Debug)]
    pub(crate) enum Handle {}

    impl Handle {
        pub(crate) fn open(_: Pid) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) async fn ended(&self) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn signal(&self, _: Signal) -> rustix::io::Result<()> {
            match *self {}
        }
    }
}
