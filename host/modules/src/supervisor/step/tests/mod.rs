//! What is decided, as a table and over all short lives.

mod every;
mod table;

use std::time::Duration;

use privatix_plugin_api::message::ClientKey;
use uuid::Uuid;

use super::*;

/// A package as the tests have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Made {
    content: char,
    product: u128,
    sells: bool,
}

const A: Made = Made { content: 'A', product: 1, sells: false };
/// The same with its offering template.
const A_SELLS: Made = Made { sells: true, ..A };
/// Another version of A.
const B: Made = Made { content: 'B', ..A };
/// Another version, with another product.
const C: Made = Made { content: 'C', product: 2, sells: false };

impl Package for Made {
    fn product(&self) -> Uuid {
        Uuid::from_u128(self.product)
    }

    fn same_as(&self, other: &Self) -> bool {
        self.content == other.content
    }

    fn can_sell(&self) -> bool {
        self.sells
    }
}

const GRACE: Duration = Duration::from_secs(2);

fn new() -> Life<Made> {
    Life::new("mine".into(), GRACE)
}

fn channel() -> ClientKey {
    ClientKey(Uuid::from_u128(7))
}

fn problem(code: Code) -> Problem {
    Problem::new(code, "", "", "")
}

/// A module that did not come up.
fn not_up(code: Code, retry: bool) -> NotUp {
    NotUp { problem: problem(code), state: State::Failed, retry }
}

fn free() -> Event<Made> {
    Event::Standing(Ok(Standing::Free))
}

fn switched_off() -> Event<Made> {
    Event::Standing(Ok(Standing::SwitchedOff(problem(Code::Disabled))))
}

fn lost() -> Event<Made> {
    Event::Standing(Ok(Standing::Lost(problem(Code::DuplicateProduct))))
}

fn good(package: Made) -> Event<Made> {
    Event::Examined(Ok(package))
}

fn bad(code: Code) -> Event<Made> {
    Event::Examined(Err(problem(code)))
}

fn ours(deaths: u32) -> Event<Made> {
    Event::Claimed(Ok(Claim::Ours { deaths }))
}

fn taken() -> Event<Made> {
    Event::Claimed(Ok(Claim::Taken(problem(Code::DuplicateProduct))))
}

fn set_aside() -> Event<Made> {
    Event::Claimed(Ok(Claim::SetAside(problem(Code::Quarantined))))
}

fn up() -> Event<Made> {
    Event::BroughtUp { outcome: Ok(()), created: true }
}

fn down(code: Code, retry: bool) -> Event<Made> {
    Event::BroughtUp { outcome: Err(not_up(code, retry)), created: true }
}

fn serves() -> Event<Made> {
    Event::Served(Ok(vec![channel()]))
}

/// Actions and what is waited for, in words.
fn words(actions: &Actions<Made>, life: &Life<Made>) -> String {
    let mut parts: Vec<String> = actions.effects.iter().map(effect).collect();
    match &actions.ask {
        Some(wanted) => parts.push(ask(wanted)),
        None => parts.extend(life.wake().map(|moment| format!("wait until {moment:?}"))),
    }
    parts.join("; ")
}

fn effect(effect: &Effect<Made>) -> String {
    let shown = |state: &State, problem: Option<&Problem>, package: Option<&Made>| {
        let mut text = state.as_str().to_owned();
        text.extend(problem.map(|problem| format!(" {}", problem.code)));
        text.extend(package.map(|package| format!(" {}", package.content)));
        text
    };
    match effect {
        Effect::Show(state, problem, package) => shown(state, problem.as_ref(), package.as_ref()),
        Effect::ShowCandidate(state, problem, package) => {
            format!("candidate {}", shown(state, Some(problem), package.as_ref()))
        }
        Effect::ClearCandidate => "no candidate".into(),
        Effect::Forget => "forget".into(),
        Effect::Release(product) => format!("release {}", product.as_u128()),
        Effect::Open(package) => format!("open {}", package.content),
        Effect::Complain(problem) => format!("complain {}", problem.code),
    }
}

fn ask(ask: &Ask<Made>) -> String {
    match ask {
        Ask::Standing(None) => "ask standing".into(),
        Ask::Standing(Some(product)) => format!("ask standing and owner of {}", product.as_u128()),
        Ask::Examine => "examine".into(),
        Ask::Claim(package) => format!("claim {} for {}", package.product, package.content),
        Ask::Register(package) => format!("register {}", package.content),
        Ask::Prove(package) => format!("prove {}", package.content),
        Ask::Serves => "ask what it serves".into(),
        Ask::BringUp(package, served) if served.is_empty() => {
            format!("bring up {}", package.content)
        }
        Ask::BringUp(package, served) => {
            format!("bring up {} with {} channel", package.content, served.len())
        }
        Ask::MakeWay => "make way".into(),
        Ask::TakeDown => "take down".into(),
    }
}
