//! The host's own log: to standard error, as text or JSON, filtered by `log.level`. Each event is one
//! line, whatever it quotes (`line.rs`); who is a stranger has a rate (`flow.rs`).
//!
//! Stricter than the filter's own parser in one thing: a lone word has to be a level, because
//! `inof` would otherwise be taken for the name of a target and nothing would ever be logged.
//! Not here: how the events of modules get into this log.

mod flow;
mod line;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use privatix_plugin_api::message::LogLevel;
use tracing::field::FieldSet;
use tracing::level_filters::LevelFilter;
use tracing::metadata::Kind;
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Callsite, Level, Metadata, callsite};
use tracing_subscriber::filter::{Directive, EnvFilter, ParseError};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

pub use self::flow::{Admission, Flow};
pub use self::line::cut;
use self::line::{Form, Lines};
use crate::config::{Log, LogFormat};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `log.level` is empty.
    #[error("log.level: no directive; write a level, such as \"info\"")]
    NoDirective,
    /// A lone word that is no level.
    #[error(
        "log.level: {directive:?} is not one of off, error, warn, info, debug, trace; for all of \
         a target write {directive}=trace"
    )]
    NotALevel {
        /// The word.
        directive: String,
    },
    /// A directive that cannot be read.
    #[error("log.level: {directive:?} is not a filter directive such as target=debug")]
    BadDirective {
        /// The directive.
        directive: String,
        /// The parser's view.
        #[source]
        source: ParseError,
    },
    /// The process already has a log.
    #[error("cannot install the log")]
    Install(#[source] TryInitError),
}

/// Installs the process's log.
///
/// # Errors
/// [`LoggingError`] where `log.level` is bad, or a log was installed before.
pub fn init(log: &Log, stderr_is_terminal: bool) -> Result<(), LoggingError> {
    subscriber(log, stderr_is_terminal, std::io::stderr)?.try_init().map_err(LoggingError::Install)
}

/// The least important events that `log` lets through from modules, whose target is `module`.
/// Never too little: a directive for a span counts with its level, since only the event itself
/// shows whether it is in that span. [`LogLevel::Error`] where none are let through, and
/// [`LogLevel::Info`] for directives that [`init`] refuses.
pub fn module_level(log: &Log) -> LogLevel {
    let Ok(filter) = filter(&log.level) else { return LogLevel::Info };
    let anywhere = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
    let by_span = log.level.contains('[');
    // Asked directly: making it a dispatcher, even for a moment, would unsettle the caches of the
    // installed one.
    let subscriber = Registry::default().with(filter);
    let lets_through = |level: &Level, probe| {
        if by_span { *level <= anywhere } else { subscriber.enabled(probe) }
    };
    let levels = [
        (Level::TRACE, LogLevel::Trace, &TRACE),
        (Level::DEBUG, LogLevel::Debug, &DEBUG),
        (Level::INFO, LogLevel::Info, &INFO),
        (Level::WARN, LogLevel::Warn, &WARN),
    ];
    let mut let_through = levels.iter().filter(|(level, _, probe)| lets_through(level, *probe));
    let_through.next().map_or(LogLevel::Error, |(_, level, _)| *level)
}

/// A log of this level and form, written to `writer`.
///
/// # Errors
/// As [`init`].
pub fn subscriber<W>(
    log: &Log,
    terminal: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + 'static, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let form = match log.format {
        LogFormat::Auto => Form::Text { coloured: terminal },
        LogFormat::Text => Form::Text { coloured: false },
        LogFormat::Json => Form::Json,
    };
    let lines = fmt::layer().with_writer(Lines::new(writer, form));
    let lines = match log.format {
        LogFormat::Auto => lines.with_ansi(terminal).boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
        // The list of spans includes the current one.
        LogFormat::Json => lines.json().with_current_span(false).boxed(),
    };
    Ok(Registry::default().with(filter(&log.level)?).with(lines))
}

fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    let directives: Vec<&str> =
        level.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    if directives.is_empty() {
        return Err(LoggingError::NoDirective);
    }
    for directive in &directives {
        check(directive)?;
    }
    let trimmed = directives.join(",");
    EnvFilter::builder()
        .parse(&trimmed)
        .map_err(|source| LoggingError::BadDirective { directive: trimmed, source })
}

fn check(directive: &str) -> Result<(), LoggingError> {
    let lone_word = !directive.contains(['=', '[']);
    if lone_word && directive.parse::<LevelFilter>().is_err() {
        return Err(LoggingError::NotALevel { directive: directive.to_owned() });
    }
    match directive.parse::<Directive>() {
        Ok(_) => Ok(()),
        Err(source) => Err(LoggingError::BadDirective { directive: directive.to_owned(), source }),
    }
}

/// Stands for a place in a module that logs, to ask the filter about. Nothing is logged from it.
struct Probe;

impl Callsite for Probe {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        &TRACE
    }
}

static PROBE: Probe = Probe;
static TRACE: Metadata<'static> = probe(Level::TRACE);
static DEBUG: Metadata<'static> = probe(Level::DEBUG);
static INFO: Metadata<'static> = probe(Level::INFO);
static WARN: Metadata<'static> = probe(Level::WARN);

const fn probe(level: Level) -> Metadata<'static> {
    let fields = FieldSet::new(&[], callsite::Identifier(&PROBE));
    Metadata::new("event", "module", level, None, None, None, fields, Kind::EVENT)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::testing::Lines;
    use super::*;

    fn log(level: &str, format: LogFormat) -> Log {
        Log { level: level.to_owned(), format }
    }

    /// What is written for a few events.
    fn written(log: &Log, terminal: bool) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(log, terminal, move || writer.clone()).expect("accepted");
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "module", module = "vpn", "line\nbreak \u{1b}[31m");
            tracing::info!(target: "module", "second");
            tracing::debug!(target: "other", "third");
        });
        lines.text()
    }

    #[test]
    fn colours_are_for_terminals_and_only_in_auto() {
        for (format, terminal, coloured) in [
            (LogFormat::Auto, true, true),
            (LogFormat::Auto, false, false),
            (LogFormat::Text, true, false),
            (LogFormat::Json, true, false),
        ] {
            let text = written(&log("info", format), terminal);
            assert_eq!(text.contains('\u{1b}'), coloured, "{format:?} {terminal}: {text}");
            assert!(text.contains("second"), "{text}");
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_it_quotes() {
        for (format, terminal) in [
            (LogFormat::Auto, true),
            (LogFormat::Auto, false),
            (LogFormat::Text, true),
            (LogFormat::Json, false),
        ] {
            let text = written(&log("info", format), terminal);
            assert_eq!(text.lines().count(), 2, "{format:?} {terminal}: {text}");
            assert!(!text.contains("\u{1b}[31m"), "the colour of a field: {text:?}");
        }
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = written(&log("info", LogFormat::Json), false);
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["target"], "module");
        assert_eq!(lines[0]["fields"]["module"], "vpn");
        assert_eq!(lines[0]["fields"]["message"], "line\nbreak \u{1b}[31m");
    }

    #[test]
    fn the_level_decides_what_is_written() {
        for (level, expected) in [
            ("off", vec![]),
            ("warn", vec!["break"]),
            ("info", vec!["break", "second"]),
            ("warn, other=debug", vec!["break", "third"]),
            ("TRACE", vec!["break", "second", "third"]),
        ] {
            let text = written(&log(level, LogFormat::Text), false);
            let found = ["break", "second", "third"].into_iter().filter(|word| text.contains(word));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{level}");
        }
    }

    #[test]
    fn bad_levels_name_the_directive() {
        for (level, expected) in [
            ("", "log.level: no directive; write a level, such as \"info\""),
            (" , ", "log.level: no directive; write a level, such as \"info\""),
            (
                "inof",
                "log.level: \"inof\" is not one of off, error, warn, info, debug, trace; for all \
                 of a target write inof=trace",
            ),
            (
                "info, hyper=verbose",
                "log.level: \"hyper=verbose\" is not a filter directive such as target=debug",
            ),
            ("info,[x", "log.level: \"[x\" is not a filter directive such as target=debug"),
            ("\u{3000}é=x", "log.level: \"é=x\" is not a filter directive such as target=debug"),
        ] {
            let error = filter(level).expect_err(level);
            assert_eq!(error.to_string(), expected, "{level}");
        }
    }

    #[test]
    fn modules_are_told_the_level_of_their_target() {
        for (level, expected) in [
            ("info", LogLevel::Info),
            ("warn", LogLevel::Warn),
            ("error", LogLevel::Error),
            ("off", LogLevel::Error),
            ("trace", LogLevel::Trace),
            ("info,module=debug", LogLevel::Debug),
            ("trace,module=warn", LogLevel::Warn),
            ("info, hyper=trace", LogLevel::Info),
            ("hyper=trace", LogLevel::Error),
            ("info,privatix=trace", LogLevel::Info),
            ("info,module[channel]=debug", LogLevel::Debug),
            ("info,[{module=vpn}]=trace", LogLevel::Trace),
            ("nonsense", LogLevel::Info),
        ] {
            assert_eq!(module_level(&log(level, LogFormat::Auto)), expected, "{level}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_level_is_accepted_or_refused(level in "[\\PC]{0,12}|[a-z=,:{}\\[\\] ]{0,24}") {
            let _ = filter(&level);
            module_level(&log(&level, LogFormat::Auto));
        }
    }
}
