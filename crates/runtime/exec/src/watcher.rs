//! Tells when files grow: one instance of inotify for all programs of the node.

#[cfg(target_os = "linux")]
pub(crate) use linux::{Watch, Watcher};
#[cfg(not(target_os = "linux"))]
pub(crate) use none::{Watch, Watcher};

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::sync::{Arc, Mutex, OnceLock, PoisonError};

    use rustix::fs::inotify;
    use tokio::io::unix::AsyncFd;
    use tokio::sync::Notify;
    use tokio::task::AbortHandle;

    use crate::handle::wait_on;

    /// The instance, made when the first file is watched.
    #[derive(Debug, Default)]
    pub(crate) struct Watcher(OnceLock<Inner>);

    type Watched = Arc<Mutex<BTreeMap<i32, Arc<Notify>>>>;

    #[derive(Debug)]
    struct Inner {
        queue: Arc<AsyncFd<OwnedFd>>,
        watched: Watched,
        task: AbortHandle,
    }

    impl Drop for Inner {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    /// A watched file.
    #[derive(Debug)]
    pub(crate) struct Watch {
        id: i32,
        changed: Arc<Notify>,
        watcher: Arc<Watcher>,
    }

    impl Watcher {
        fn inner(&self) -> io::Result<&Inner> {
            if let Some(inner) = self.0.get() {
                return Ok(inner);
            }
            let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
            let queue = Arc::new(wait_on(inotify::init(flags)?)?);
            let watched = Watched::default();
            let listening = listen(Arc::clone(&queue), Arc::clone(&watched));
            let task = tokio::spawn(listening).abort_handle();
            // Where another was faster, this one ends as it is dropped.
            Ok(self.0.get_or_init(|| Inner { queue, watched, task }))
        }

        /// Watches a file that exists.
        pub(crate) fn watch(self: &Arc<Self>, path: &Path) -> io::Result<Watch> {
            let inner = self.inner()?;
            let changed = Arc::new(Notify::new());
            let mut watched = inner.watched.lock().unwrap_or_else(PoisonError::into_inner);
            let id = inotify::add_watch(&*inner.queue, path, inotify::WatchFlags::MODIFY)?;
            watched.insert(id, Arc::clone(&changed));
            Ok(Watch { id, changed, watcher: Arc::clone(self) })
        }
    }

    impl Watch {
        /// Waits until the file has changed since the last call.
        pub(crate) async fn changed(&self) {
            self.changed.notified().await;
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            if let Some(inner) = self.watcher.0.get() {
                let mut watched = inner.watched.lock().unwrap_or_else(PoisonError::into_inner);
                watched.remove(&self.id);
                // A file that was removed has taken its watch with it: an error says just that.
                inotify::remove_watch(&*inner.queue, self.id).unwrap_or(());
            }
        }
    }

    async fn listen(queue: Arc<AsyncFd<OwnedFd>>, watched: Watched) {
        loop {
            let Ok(mut ready) = queue.readable().await else { return };
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut changes = inotify::Reader::new(queue.get_ref(), &mut buffer);
            loop {
                match changes.next() {
                    Ok(change) => {
                        let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
                        if change.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                            watched.values().for_each(|file| file.notify_one());
                        } else if let Some(file) = watched.get(&change.wd()) {
                            // A permit is kept for a reader that does not wait at this moment.
                            file.notify_one();
                        }
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => break,
                }
            }
            ready.clear_ready();
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod none {
    use std::io;
    use std::path::Path;
    use std::sync::Arc;

    /// Nothing is watched here, for no program is taken over.
    #[derive(Debug, Default)]
    pub(crate) struct Watcher;

    /// There is none.
    #[derive(Debug)]
    pub(crate) enum Watch {}

    impl Watcher {
        pub(crate) fn watch(self: &Arc<Self>, _: &Path) -> io::Result<Watch> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    impl Watch {
        pub(crate) async fn changed(&self) {
            match *self {}
        }
    }
}
