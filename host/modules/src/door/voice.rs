//! What a module says in the host's log, under the target `module`.
//!
//! A module is a stranger here: what it says is cut, and beyond a rate it is only counted. That it
//! cannot look like the host's own is the log's affair ([`privatix_base::logging`]).

use privatix_plugin_api::message::{LogEvent, LogLevel};

use privatix_base::logging::{Admission, Flow, cut};

/// The most bytes of a message.
const MESSAGE: usize = 4 * 1024;

/// The most bytes of the target that a module gives, and of the fields together.
const TARGET: usize = 128;
const FIELDS: usize = 2 * 1024;

/// The lines of one generation of a module.
pub(super) struct Voice {
    module: String,
    flow: Flow,
}

impl Voice {
    pub(super) fn new(module: &str) -> Self {
        Self { module: module.to_owned(), flow: Flow::default() }
    }

    /// Writes an event, unless there were too many.
    pub(super) fn say(&self, event: &LogEvent) {
        if !is_wanted(event.level) {
            return;
        }
        let message = cut(&event.message, MESSAGE);
        let target = cut(&event.target, TARGET);
        let fields = fields(event);
        let bytes = message.len() + target.len() + fields.as_ref().map_or(0, String::len);
        match self.flow.admit(bytes) {
            Admission::Write { skipped } => {
                self.left_out(skipped);
                self.write(event.level, &message, &target, fields.as_deref());
            }
            Admission::FirstSkipped => {
                let module = &self.module;
                tracing::warn!(module, "the module logs too much: its lines are left out for now");
            }
            Admission::Skipped => {}
        }
    }

    fn write(&self, level: LogLevel, message: &str, at: &str, fields: Option<&str>) {
        let module = &self.module;
        macro_rules! emit {
            ($level:ident) => {
                tracing::event!(target: "module", tracing::Level::$level, module, at, fields, "{message}")
            };
        }
        match level {
            LogLevel::Error => emit!(ERROR),
            LogLevel::Warn => emit!(WARN),
            LogLevel::Info => emit!(INFO),
            LogLevel::Debug => emit!(DEBUG),
            LogLevel::Trace => emit!(TRACE),
        }
    }

    fn left_out(&self, skipped: u64) {
        if skipped > 0 {
            let module = &self.module;
            tracing::warn!(module, skipped, "the module logged too much: lines were left out");
        }
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.left_out(self.flow.skipped());
    }
}

/// Whether the log's level lets it through; what it does not costs nothing.
fn is_wanted(level: LogLevel) -> bool {
    macro_rules! enabled {
        ($level:ident) => {
            tracing::enabled!(target: "module", tracing::Level::$level)
        };
    }
    match level {
        LogLevel::Error => enabled!(ERROR),
        LogLevel::Warn => enabled!(WARN),
        LogLevel::Info => enabled!(INFO),
        LogLevel::Debug => enabled!(DEBUG),
        LogLevel::Trace => enabled!(TRACE),
    }
}

fn fields(event: &LogEvent) -> Option<String> {
    let mut text = String::new();
    for (at, (key, value)) in event.fields.iter().enumerate() {
        if text.len() >= FIELDS {
            text.push_str(&format!("… ({} fields more)", event.fields.len() - at));
            break;
        }
        let space = if at == 0 { "" } else { " " };
        text.push_str(&format!("{space}{}={}", cut(key, TARGET), cut(value, FIELDS)));
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use privatix_base::logging::testing::Lines;

    use super::*;

    /// What is in the log after a module has said something.
    fn heard(say: impl FnOnce(&Voice)) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = privatix_base::config::Log {
            level: "info".into(),
            format: privatix_base::config::LogFormat::Text,
        };
        let log =
            privatix_base::logging::subscriber(&log, false, move || writer.clone()).expect("a log");
        tracing::subscriber::with_default(log, || say(&Voice::new("vpn")));
        lines.text()
    }

    fn event(level: LogLevel, message: &str, fields: &[(&str, &str)]) -> LogEvent {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        LogEvent {
            level,
            target: "a\nb".into(),
            message: message.into(),
            fields: fields.iter().map(pair).collect(),
        }
    }

    #[test]
    fn a_message_makes_one_line() {
        let forged = "x\n2026-11-28T02:15:03Z ERROR privatix: the disk is full\r\u{2028}y";
        let log = heard(|voice| {
            voice.say(&event(LogLevel::Info, forged, &[("k\n", "v\u{1b}[2J")]));
            voice.say(&event(LogLevel::Debug, "not wanted", &[]));
        });
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("module: x\\n2026") && log.contains("module=\"vpn\""), "{log}");
        assert!(log.trim_end().chars().all(|letter| !letter.is_control()), "{log:?}");
    }

    #[test]
    fn what_is_long_is_cut() {
        let long = "x".repeat(900_000);
        let many: Vec<_> = (0..9000).map(|n| (format!("k{n}"), long[..40].to_owned())).collect();
        let many: Vec<_> = many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let log = heard(|voice| {
            voice.say(&event(LogLevel::Warn, &long, &[(&long, &long)]));
            voice.say(&event(LogLevel::Warn, "many", &many));
        });
        assert!(log.len() < 12 * 1024, "{} bytes", log.len());
        assert!(log.contains("(895904 bytes more)") && log.contains("fields more)"), "{log}");
        assert!(log.contains("module=\"vpn\""), "who said it is there: {log}");
    }

    #[test]
    fn too_many_lines_are_counted_instead() {
        let log = heard(|voice| {
            for _ in 0..20_000 {
                voice.say(&event(LogLevel::Info, &"x".repeat(100), &[]));
            }
        });
        assert!(log.len() < 1024 * 1024, "{} bytes", log.len());
        assert!(log.contains("left out for now"), "{log:.200}");
        assert!(log.contains("lines were left out") && log.contains("skipped="), "{log:.200}");
    }
}
