//! What the user of a channel has agreed to: the networks that go through the tunnel.
//!
//! The first access message says it, since the user has ordered what it describes. A later one
//! that says something else takes effect only after its user has agreed: fewer networks would
//! leave unprotected what was protected, and more would show the agent what was not its affair.
//! It is on disk, so that neither a restart nor a replacement forgets it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use privatix_plugin_api::message::ClientKey;
use serde::{Deserialize, Serialize};

use crate::journal::private;
use crate::profile::Routes;

/// Why the agreements cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("the agreements in {}", path.display())]
pub(super) struct AgreementError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Agreement {
    routes: Routes,
    /// What the user was asked for since, and has not agreed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<Routes>,
}

/// What follows from the routes of an access message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Agreed,
    /// The user has to be asked, in these words.
    Ask(String),
}

/// The agreements of all channels.
#[derive(Debug)]
pub(super) struct Agreements {
    path: PathBuf,
    known: Mutex<BTreeMap<ClientKey, Agreement>>,
}

impl Agreements {
    pub(super) fn open(directory: &Path) -> Result<Self, AgreementError> {
        let path = directory.join("agreed.json");
        let fail = |source| AgreementError { path: path.clone(), source };
        let known = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| fail(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(fail(error)),
        };
        Ok(Self { path, known: Mutex::new(known) })
    }

    /// What a start with these routes means. A start after the question is the answer: the core
    /// starts no channel with the hold `user`, and only its user lifts that.
    pub(super) fn judge(
        &self,
        channel: ClientKey,
        routes: &Routes,
    ) -> Result<Judgement, AgreementError> {
        self.change(|known| match known.get(&channel) {
            Some(agreed) if agreed.routes == *routes && agreed.asked.is_none() => {
                (false, Judgement::Agreed)
            }
            Some(agreed) if agreed.routes != *routes && agreed.asked.as_ref() != Some(routes) => {
                (false, Judgement::Ask(question(channel, &agreed.routes, routes)))
            }
            _ => {
                known.insert(channel, Agreement { routes: routes.clone(), asked: None });
                (true, Judgement::Agreed)
            }
        })
    }

    /// The user's own settings say it.
    pub(super) fn settle(&self, channel: ClientKey, routes: &Routes) -> Result<(), AgreementError> {
        let agreed = Agreement { routes: routes.clone(), asked: None };
        self.change(|known| (known.insert(channel, agreed.clone()) != Some(agreed), ()))
    }

    /// The user was asked for these routes.
    pub(super) fn asked(&self, channel: ClientKey, routes: &Routes) -> Result<(), AgreementError> {
        self.change(|known| {
            if let Some(agreed) = known.get_mut(&channel) {
                agreed.asked = Some(routes.clone());
            }
            (true, ())
        })
    }

    /// What the user of a channel was asked and has not answered.
    pub(super) fn question(&self, channel: ClientKey) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let agreed = known.get(&channel)?;
        agreed.asked.as_ref().map(|asked| question(channel, &agreed.routes, asked))
    }

    /// The channel is over.
    pub(super) fn forget(&self, channel: ClientKey) -> Result<(), AgreementError> {
        self.change(|known| (known.remove(&channel).is_some(), ()))
    }

    fn change<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<ClientKey, Agreement>) -> (bool, T),
    ) -> Result<T, AgreementError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (changed, outcome) = change(&mut known);
        if changed {
            self.write(&known)
                .map_err(|source| AgreementError { path: self.path.clone(), source })?;
        }
        Ok(outcome)
    }

    fn write(&self, known: &BTreeMap<ClientKey, Agreement>) -> io::Result<()> {
        let part = self.path.with_extension("part");
        let mut file = private(&part)?;
        file.write_all(serde_json::to_string_pretty(known)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &self.path)
    }
}

fn question(channel: ClientKey, from: &Routes, to: &Routes) -> String {
    format!(
        "the agent has changed what goes through the tunnel from {from} to {to}; \
         to agree: privatix channel resume {channel}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(networks: &[&str]) -> Routes {
        Routes::only(networks.iter().map(|text| text.parse().expect("a network")))
    }

    #[test]
    fn changed_routes_wait_for_their_user() {
        let home = tempfile::tempdir().expect("a directory");
        let channel = ClientKey(uuid::Uuid::nil());
        let open = || Agreements::open(home.path()).expect("opened");
        let judge = |routes: &Routes| open().judge(channel, routes).expect("judged");
        let (all, less, other) =
            (Routes::Everything, only(&["192.0.2.0/24"]), only(&["10.0.0.0/8", "192.0.2.0/24"]));
        assert_eq!(judge(&all), Judgement::Agreed);
        assert_eq!(judge(&all), Judgement::Agreed);
        // Asked again and again, it is no agreement.
        for _ in 0..3 {
            let Judgement::Ask(why) = judge(&less) else { panic!("agreed") };
            assert!(why.contains("everything") && why.contains("192.0.2.0/24"), "{why}");
        }
        // Nor is another one that was not asked for.
        open().asked(channel, &less).expect("noted");
        assert!(open().question(channel).is_some());
        assert!(matches!(judge(&other), Judgement::Ask(_)));
        // The user has resumed it.
        assert_eq!(judge(&less), Judgement::Agreed);
        assert_eq!(open().question(channel), None);
        // More is asked for as well as less.
        for wider in [&all, &other] {
            assert!(matches!(judge(wider), Judgement::Ask(_)));
        }
        // The agent takes its change back: what was agreed to is agreed to.
        open().asked(channel, &all).expect("noted");
        assert_eq!(judge(&less), Judgement::Agreed);
        assert!(matches!(judge(&all), Judgement::Ask(_)));
        // The user's own word needs no agreement.
        open().settle(channel, &other).expect("noted");
        assert_eq!(judge(&other), Judgement::Agreed);
        open().forget(channel).expect("forgotten");
        assert_eq!(judge(&all), Judgement::Agreed);
    }
}
