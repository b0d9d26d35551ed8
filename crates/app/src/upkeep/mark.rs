//! What a store says about its own moves: the setting that keeps anybody from working on half a
//! copy, or on a store that was left behind.

use serde::{Deserialize, Serialize};
use watchbell_api::ControlError;
use watchbell_core::port::Store;
use watchbell_core::{Time, chain};
use watchbell_db::transfer::Own;

/// The setting. It belongs to the store that has it, and is never copied.
const KEY: &str = "transfer";
/// Rows of a store that are not its contents.
pub(super) const OWN: [Own; 1] = [Own { table: "ops.settings", rows: "key = 'transfer'" }];

/// Where the contents of a store came from, or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub(crate) enum Mark {
    /// Rows were being copied into it.
    Unfinished {
        /// From where.
        from: String,
        /// Since when.
        since: Time,
    },
    /// Everything was copied into it.
    Arrived {
        /// From where.
        from: String,
        /// When.
        at: Time,
    },
    /// Everything was copied out of it.
    Moved {
        /// Where to.
        to: String,
        /// When.
        at: Time,
    },
}

impl Mark {
    /// The mark of a store, if it has one.
    pub(crate) async fn read(store: &dyn Store) -> Result<Option<Self>, ControlError> {
        let value = store.setting(KEY).await.map_err(|e| ControlError::unavailable(chain(&e)))?;
        value.map(serde_json::from_value).transpose().map_err(|e| {
            ControlError::internal("the store's mark of a move is damaged").because(&e)
        })
    }

    /// Marks a store, over what it said before.
    pub(super) async fn set(&self, store: &dyn Store, now: Time) -> Result<(), ControlError> {
        let value = serde_json::to_value(self)
            .map_err(|e| ControlError::internal("no JSON form").because(&e))?;
        let set = store.set_setting(KEY, value, now).await;
        set.map_err(|e| ControlError::unavailable(chain(&e)))
    }

    /// Why nobody may work on the store at `location`, if so. With `force` one that was left behind
    /// may be used again; half a copy never.
    pub(crate) fn refusal(&self, location: &str, force: bool) -> Option<ControlError> {
        match self {
            Self::Arrived { .. } => None,
            Self::Unfinished { from, since } => Some(
                ControlError::conflict(format!(
                    "the store {location} is half a copy of {from}: the copying that began at \
                     {since} was not finished"
                ))
                .help("repeat the `watchbell db move` or `db restore`: it begins anew"),
            ),
            Self::Moved { .. } if force => None,
            Self::Moved { to, at } => Some(
                ControlError::conflict(format!("the store {location} was moved to {to} at {at}"))
                    .help(
                        "name the new one as store.url or DATABASE_URL; add --force to go on with \
                         what is here, as of then",
                    ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_copy_is_refused_always_and_what_was_left_behind_unless_forced() {
        let (from, to, at) = ("a".to_owned(), "b".to_owned(), Time(0));
        let half = Mark::Unfinished { from: from.clone(), since: at };
        let left = Mark::Moved { to, at };
        let here = Mark::Arrived { from, at };
        let refused = |m: &Mark| [false, true].map(|force| m.refusal("s", force).is_some());
        assert_eq!([&half, &left, &here].map(refused), [[true, true], [true, false], [false; 2]]);
        for mark in [half, left, here] {
            let text = serde_json::to_value(&mark).unwrap();
            assert_eq!(serde_json::from_value::<Mark>(text).unwrap(), mark);
        }
    }
}
