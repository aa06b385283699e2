//! Denied logins in the log: the first few of a source one by one, the rest as a number.
//!
//! Anybody may try to log in, as often as they like; the log is not theirs to fill. Sources are
//! addresses, of IPv6 networks of /64, and only so many are told apart.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

/// For so long the denials of a source are counted together.
const WINDOW: Duration = Duration::from_secs(60);

/// So many of each source are logged one by one in that time, and so many of all sources together.
const SINGLY: u64 = 3;
const SINGLY_OF_ALL: u64 = 30;

/// Sources that are told apart.
const SOURCES: usize = 1024;

/// Summaries that are written for one window; the other sources are in one line.
const SUMMARIES: usize = 10;

/// Where logins come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Network(IpAddr),
    /// Not known, or one of too many.
    Other,
}

impl Source {
    fn of(from: Option<SocketAddr>) -> Self {
        match from.map(|from| from.ip()) {
            None => Self::Other,
            Some(IpAddr::V4(address)) => Self::Network(address.into()),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                Self::Network(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(IpAddr::V6(network)) => write!(out, "{network}/64"),
            Self::Network(address) => address.fmt(out),
            Self::Other => out.write_str("other sources"),
        }
    }
}

/// The denials of the present window.
#[derive(Debug, Default)]
pub(super) struct Denials {
    since: Option<Instant>,
    singly: u64,
    counts: HashMap<Source, u64>,
}

impl Denials {
    /// One more; whether it is to be logged by itself.
    pub(super) fn count(&mut self, from: Option<SocketAddr>, now: Instant) -> bool {
        self.since.get_or_insert(now);
        let mut source = Source::of(from);
        if self.counts.len() >= SOURCES && !self.counts.contains_key(&source) {
            source = Source::Other;
        }
        let count = self.counts.entry(source).or_default();
        *count += 1;
        let singly = *count <= SINGLY && self.singly < SINGLY_OF_ALL;
        self.singly += u64::from(singly);
        singly
    }

    /// What was not logged one by one, once the window is over: a line for each of the busiest
    /// sources, and one for all others.
    pub(super) fn summaries(&mut self, now: Instant) -> Vec<String> {
        if self.since.is_none_or(|since| now < since + WINDOW) {
            return Vec::new();
        }
        let Self { counts, singly, .. } = std::mem::take(self);
        let total: u64 = counts.values().sum();
        if total <= singly {
            return Vec::new();
        }
        let mut many: Vec<_> = counts.into_iter().filter(|(_, count)| *count > SINGLY).collect();
        many.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let line = |source: String, count: u64| {
            format!("{count} logins from {source} were denied within {} s", WINDOW.as_secs())
        };
        many.truncate(SUMMARIES);
        let told: u64 = many.iter().map(|(_, count)| count).sum();
        let mut lines: Vec<_> =
            many.into_iter().map(|(source, count)| line(source.to_string(), count)).collect();
        if total > told {
            lines.push(line("all other sources".to_owned(), total - told));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("an address"))
    }

    #[tokio::test(start_paused = true)]
    async fn denials_of_one_source_are_summed_up() {
        let mut denials = Denials::default();
        let now = Instant::now();
        let singly = |denials: &mut Denials, source: &str| {
            (0..1000).filter(|_| denials.count(from(source), now)).count()
        };
        assert_eq!(singly(&mut denials, "192.0.2.7:1"), 3);
        // Another source is told apart, another port and another address of a /64 are not.
        assert_eq!(singly(&mut denials, "192.0.2.7:2"), 0);
        assert_eq!(singly(&mut denials, "192.0.2.8:1"), 3);
        assert_eq!(singly(&mut denials, "[2001:db8::1]:1"), 3);
        assert_eq!(singly(&mut denials, "[2001:db8::2]:1"), 0);
        assert_eq!(denials.summaries(now), Vec::<String>::new());
        let lines = denials.summaries(now + WINDOW);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("2000 logins from 192.0.2.7 ")), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("from 2001:db8::/64 ")), "{lines:?}");
        // The next window begins anew.
        assert_eq!(denials.summaries(now + WINDOW * 3), Vec::<String>::new());
        assert!(denials.count(from("192.0.2.7:1"), now + WINDOW * 3));
    }

    #[tokio::test(start_paused = true)]
    async fn denials_of_very_many_sources_stay_few_lines() {
        let mut denials = Denials::default();
        let now = Instant::now();
        let mut lines = 0;
        for n in 0..100_000_u32 {
            let address = SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + n), 1));
            lines += usize::from(denials.count(Some(address), now));
        }
        assert!(denials.counts.len() <= SOURCES + 1);
        lines += denials.summaries(now + WINDOW).len();
        assert!(lines <= 50, "{lines} lines");
    }
}
