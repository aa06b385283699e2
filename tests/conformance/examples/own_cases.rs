//! Cases of a module's own beside those of the kit: what `tests/conformance.rs` of a crate may be.
//!
//! These two suit any module that can be exercised; those of a real one know its protocol.

use std::process::ExitCode;

use privatix_conformance::case::{Case, Finding, case, ensure};
use privatix_conformance::core::{Bench, Pair};

fn cases() -> Vec<Case> {
    vec![
        case(
            "own.little",
            "A single byte is carried.",
            "docs/writing-a-module.md#sessions-usage-and-credit: usage in the smallest unit",
        )
        .after(&["together.carry"])
        .run(|bench| carries(bench, 1)),
        case(
            "own.too-much",
            "More than there is, is carried.",
            "docs/writing-a-module.md#sessions-usage-and-credit: usage in the smallest unit",
        )
        .after(&["own.little"])
        .run(|_| async { ensure(false, || "there was no more of it".into()) }),
    ]
}

async fn carries(bench: Bench, amount: u64) -> Result<(), Finding> {
    let pair = Pair::new(&bench).await?;
    let channel = pair.channel().await?;
    let moved = pair.exercise(channel, amount).await?;
    ensure(moved >= amount, || format!("{moved} of {amount} bytes"))
}

fn main() -> ExitCode {
    privatix_conformance::test(env!("CARGO_MANIFEST_DIR"), cases())
}
