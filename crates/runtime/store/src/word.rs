//! Words between nodes: what one changed, told to the others so that they look at once.
//!
//! A word gives latency and nothing else, so it is told outside of the transaction that it speaks
//! of, after a short pause in which others join it, and is not told again when it is lost. Whoever
//! may have missed one hears that everything may have changed.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use watchbell_clock::Clock;
use watchbell_core::port::Hearing;
use watchbell_core::{BoxFuture, Effects, Millis};
use watchbell_db::{Database, Notification, Notifications};

use crate::sql::is_shared;

/// The channel on which all nodes of a database speak.
const CHANNEL: &str = "watchbell";
/// How long the first word waits for others to join it.
const PAUSE: Millis = Millis(5);
/// Longest word, in bytes: PostgreSQL takes less than 8,000. A longer one says `everything`.
const LONGEST: usize = 7_500;

/// A word on its way.
#[derive(Deserialize)]
struct Word<'a> {
    /// Who says it: whoever hears its own word drops it.
    #[serde(borrow)]
    from: std::borrow::Cow<'a, str>,
    effects: Effects,
}

/// Words of one direction that nobody has taken yet: however many there are, they are one.
#[derive(Debug, Default)]
struct Letterbox {
    effects: Mutex<Effects>,
    bell: Notify,
}

impl Letterbox {
    fn put(&self, effects: Effects) {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).merge(effects);
        self.bell.notify_one();
    }

    fn take(&self) -> Effects {
        std::mem::take(&mut *self.effects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a process says to the other nodes of its database, and hears from them.
#[derive(Debug)]
pub(crate) struct Words(Option<Speech>);

/// There can be other nodes.
#[derive(Debug)]
struct Speech {
    db: Database,
    me: String,
    out: Arc<Letterbox>,
    heard: Arc<Letterbox>,
    hears: Arc<AtomicBool>,
    /// Who sends and who listens; a process that waits for nothing has neither.
    tasks: Vec<AbortHandle>,
}

impl Drop for Speech {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Words {
    /// Speaks when it is asked to, and hears nothing.
    pub(crate) fn deaf(db: &Database) -> Self {
        Self(is_shared(db).then(|| Speech {
            db: db.clone(),
            me: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            out: Arc::default(),
            heard: Arc::default(),
            hears: Arc::default(),
            tasks: Vec::new(),
        }))
    }

    /// Speaks after a pause, and listens.
    pub(crate) fn listening(db: &Database, clock: &Clock) -> Self {
        let mut words = Self::deaf(db);
        if let Some(s) = &mut words.0 {
            let speak = speak(s.db.clone(), s.me.clone(), Arc::clone(&s.out), clock.clone());
            s.tasks.push(tokio::spawn(speak).abort_handle());
            if let Some(said) = s.db.listen(CHANNEL) {
                let listen = listen(said, s.me.clone(), Arc::clone(&s.heard), Arc::clone(&s.hears));
                s.tasks.push(tokio::spawn(listen).abort_handle());
            }
        }
        words
    }

    /// Tells the others soon, where this process is a node.
    pub(crate) fn tell(&self, effects: &Effects) {
        if let Some(speech) = &self.0
            && !effects.is_empty()
        {
            speech.out.put(effects.clone());
        }
    }

    /// Tells the others: soon where this process is a node, otherwise at once, since it may end
    /// next.
    pub(crate) async fn announce(&self, effects: Effects) {
        let Some(speech) = &self.0 else { return };
        if speech.tasks.is_empty() {
            send(&speech.db, &speech.me, &effects).await;
        } else {
            self.tell(&effects);
        }
    }

    /// Tells the others at once, with all that waits to be told.
    pub(crate) async fn finish(&self, effects: Effects) {
        let Some(speech) = &self.0 else { return };
        let mut all = speech.out.take();
        all.merge(effects);
        send(&speech.db, &speech.me, &all).await;
    }

    /// The next word of another node.
    pub(crate) fn told(&self) -> BoxFuture<'_, Effects> {
        let Some(speech) = &self.0 else { return Box::pin(std::future::pending()) };
        Box::pin(async move {
            loop {
                let effects = speech.heard.take();
                if !effects.is_empty() {
                    return effects;
                }
                speech.heard.bell.notified().await;
            }
        })
    }

    pub(crate) fn hears(&self) -> Hearing {
        match &self.0 {
            None => Hearing::Alone,
            Some(speech) if speech.hears.load(Ordering::Relaxed) => Hearing::Listening,
            Some(_) => Hearing::Deaf,
        }
    }
}

/// Sends what is in the letterbox: the first word at once, those that follow it together.
async fn speak(db: Database, me: String, out: Arc<Letterbox>, clock: Clock) {
    let mut quiet_until = clock.now();
    loop {
        out.bell.notified().await;
        clock.sleep_until(quiet_until).await;
        quiet_until = clock.now() + PAUSE;
        let effects = out.take();
        if !effects.is_empty() {
            send(&db, &me, &effects).await;
        }
    }
}

/// Puts into the letterbox what other nodes say.
async fn listen(
    mut said: Notifications,
    me: String,
    heard: Arc<Letterbox>,
    hears: Arc<AtomicBool>,
) {
    while let Some(notification) = said.next().await {
        match notification {
            Notification::Message(payload) => match serde_json::from_str::<Word<'_>>(&payload) {
                Ok(word) if word.from == me => {}
                Ok(word) => heard.put(word.effects),
                // Another version of this program says more than this one knows.
                Err(error) => {
                    tracing::debug!(%error, "a word on `{CHANNEL}` is not understood");
                    heard.put(Effects::everything());
                }
            },
            // Whatever was said meanwhile was not heard.
            Notification::Reconnected => {
                hears.store(true, Ordering::Relaxed);
                heard.put(Effects::everything());
            }
            Notification::Lost => hears.store(false, Ordering::Relaxed),
        }
    }
    hears.store(false, Ordering::Relaxed);
}

/// One word to all. That it cannot be said is no failure of what it speaks of: the others look by
/// themselves.
async fn send(db: &Database, me: &str, effects: &Effects) {
    if let Err(error) = db.notify(CHANNEL, &payload(me, effects)).await {
        tracing::debug!(%error, "other nodes could not be told of a change");
    }
}

fn payload(me: &str, effects: &Effects) -> String {
    let word = |effects: &Effects| serde_json::json!({"from": me, "effects": effects}).to_string();
    let full = word(effects);
    if full.len() <= LONGEST { full } else { word(&Effects::everything()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_word_says_everything() {
        let few = Effects { jobs: ["a".to_owned()].into(), leases: true, ..Effects::default() };
        let many = Effects {
            events: (0..1_000).map(|n| format!("some.event.{n}")).collect(),
            ..Effects::default()
        };
        for (said, heard) in [(few.clone(), few), (many, Effects::everything())] {
            let payload = payload("me", &said);
            assert!(payload.len() <= LONGEST);
            let word: Word<'_> = serde_json::from_str(&payload).unwrap();
            assert_eq!((word.from.as_ref(), word.effects), ("me", heard));
        }
    }

    #[tokio::test]
    async fn words_that_wait_are_one() {
        let letterbox = Letterbox::default();
        letterbox.put(Effects { leases: true, ..Effects::default() });
        letterbox.put(Effects { desired: true, ..Effects::default() });
        letterbox.bell.notified().await;
        let both = Effects { leases: true, desired: true, ..Effects::default() };
        assert_eq!(letterbox.take(), both);
        assert!(letterbox.take().is_empty());
    }
}
