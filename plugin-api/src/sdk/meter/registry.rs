//! What the meters of one core have not reported: asked for when the module ends.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::{Deserialize, Serialize};

use super::Shared;
use crate::message::{ClientKey, SessionId};

/// Usage of a channel that the core has not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Unreported {
    /// The channel.
    pub client_key: ClientKey,
    /// Smallest units.
    pub amount: u64,
}

#[derive(Default)]
pub(crate) struct Registry {
    inner: Mutex<Meters>,
}

#[derive(Default)]
struct Meters {
    /// Weak, as a meter has its core and with it this registry.
    live: HashMap<SessionId, Weak<Shared>>,
    /// What meters that are gone have left.
    lost: BTreeMap<ClientKey, u64>,
}

impl Registry {
    pub(super) fn add(&self, meter: &Arc<Shared>) {
        self.meters().live.insert(meter.session, Arc::downgrade(meter));
    }

    /// A meter is gone, and has left so much.
    pub(super) fn remove(&self, session: SessionId, channel: ClientKey, lost: u64) {
        let mut meters = self.meters();
        meters.live.remove(&session);
        if lost > 0 {
            add(&mut meters.lost, channel, lost);
        }
    }

    pub(crate) fn unreported(&self) -> Vec<Unreported> {
        let (live, mut amounts) = {
            let meters = self.meters();
            let live: Vec<_> = meters.live.values().filter_map(Weak::upgrade).collect();
            (live, meters.lost.clone())
        };
        // Without the lock, which the last holder of a meter takes.
        for meter in live {
            add(&mut amounts, meter.channel, meter.account().unreported());
        }
        let amounts = amounts.into_iter().filter(|(_, amount)| *amount > 0);
        amounts.map(|(client_key, amount)| Unreported { client_key, amount }).collect()
    }

    fn meters(&self) -> MutexGuard<'_, Meters> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(amounts: &mut BTreeMap<ClientKey, u64>, channel: ClientKey, amount: u64) {
    let sum = amounts.entry(channel).or_default();
    *sum = sum.saturating_add(amount);
}
