//! What an agent's clock says, signed, so that a client learns that two clocks differ before it orders
//! anything: requests are good for two minutes, and whose clock is wrong gets nothing but refusals.
//! Absent here: which of the two clocks is right, which neither can know.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::identity::PublicKey;
use super::order::ChannelRequest;
use super::signed::{self, Kind};

/// An agent's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentTime {
    /// Whose clock it is, and who signs this.
    pub agent_public_key: PublicKey,
    /// What the client asked with, so that no old answer is passed off as a new one.
    pub nonce: Uuid,
    /// What the clock says, in Unix seconds.
    pub time: u64,
}

/// An agent's time as it came, and the client's own when it asked and when the answer was there.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// The signed message.
    pub message: Value,
    /// What was asked with.
    pub nonce: Uuid,
    /// When the client asked, in Unix seconds.
    pub asked: u64,
    /// When the answer was there.
    pub answered: u64,
}

impl Heard {
    /// By how many seconds the agent's clock is certainly ahead, or behind if it is below 0; `None`
    /// where this is not the time of this agent, asked for now.
    pub fn ahead(&self, agent: &PublicKey) -> Option<i64> {
        let read: AgentTime = signed::read(&self.message).ok()?;
        signed::verify(Kind::Time, &self.message, agent).ok()?;
        if read.agent_public_key != *agent || read.nonce != self.nonce {
            return None;
        }
        // It was made some time between the two.
        let apart = |from: u64, to: u64| i64::try_from(to.saturating_sub(from)).unwrap_or(i64::MAX);
        Some(match read.time {
            time if time > self.answered => apart(self.answered, time),
            time => -apart(time, self.asked),
        })
    }
}

/// What has to be done about two clocks, if it is anything.
pub fn complaint(ahead: i64) -> Option<String> {
    let seconds = ahead.unsigned_abs();
    if seconds <= ChannelRequest::TOLERANCE {
        return None;
    }
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    Some(format!(
        "the agent's clock is {} {way} this host's clock. They may be {} s apart, because signed \
         requests are good for that long; beyond it the agent refuses them. Set the clock that is \
         wrong (`timedatectl` shows whether this one is synchronized)",
        span(seconds),
        ChannelRequest::TOLERANCE
    ))
}

/// A span in at most two units.
fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let first = UNITS.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let mut rest = seconds;
    let shown = UNITS.iter().skip(first).take(2).filter_map(|(unit, name)| {
        let count = rest / unit;
        rest %= unit;
        (count > 0).then(|| format!("{count} {name}"))
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::testing::{identity, with};

    #[test]
    fn by_how_much_a_clock_is_off() {
        let (nonce, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let key = identity(1).public().signing;
        let time = json!({"agentPublicKey": key, "nonce": nonce, "time": 1000});
        for (changes, signer, kind, asked, answered, expected) in [
            (json!({}), 1, Kind::Time, 1000, 1000, Some(0)),
            (json!({}), 1, Kind::Time, 990, 1010, Some(0)),
            (json!({}), 1, Kind::Time, 870, 880, Some(120)),
            (json!({}), 1, Kind::Time, 1121, 1130, Some(-121)),
            (json!({}), 2, Kind::Time, 1000, 1000, None),
            (json!({}), 1, Kind::Account, 1000, 1000, None),
            (json!({"nonce": other}), 1, Kind::Time, 1000, 1000, None),
            (json!({"agentPublicKey": identity(2).public().signing}), 1, Kind::Time, 0, 0, None),
            (json!({"time": "now"}), 1, Kind::Time, 1000, 1000, None),
        ] {
            let message = with(kind, &time, &changes, &identity(signer));
            let heard = Heard { message, nonce, asked, answered };
            assert_eq!(heard.ahead(&key), expected, "{changes} {asked} {answered}");
        }
    }

    #[test]
    fn a_complaint_says_which_way_and_how_far() {
        for (ahead, expected) in [
            (0, None),
            (120, None),
            (-120, None),
            (121, Some("the agent's clock is 2 min 1 s ahead of this host's clock.")),
            (-3600, Some("the agent's clock is 1 h behind this host's clock.")),
            (3_780, Some("the agent's clock is 1 h 3 min ahead of this host's clock.")),
            (90_061, Some("the agent's clock is 1 d 1 h ahead of this host's clock.")),
        ] {
            let found = complaint(ahead);
            let found = found.as_deref().map(|text| &text[..=text.find('.').expect("a sentence")]);
            assert_eq!(found, expected, "{ahead}");
        }
    }
}
