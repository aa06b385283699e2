//! A channel's money in words.

use super::output;
use privatix_core::{ChannelView, MoneyView};
use privatix_domain::billing::Outlook;
use privatix_domain::offering::UnitType;

/// The lines of `channel show` about money: label and text.
pub(super) fn lines(channel: &ChannelView, now: u64) -> Vec<(&'static str, String)> {
    let Some(money) = &channel.money else { return Vec::new() };
    let mut lines =
        vec![("cost", format!("{}, paid {} of {}", money.cost, money.paid, money.deposit))];
    if money.unsent {
        lines.push(("cheque", cheque(money, now)));
    }
    if let Some(agent) = &money.agent {
        let held = match agent.holds.as_slice() {
            [] => String::new(),
            holds => format!(", held for {}", holds.join(", ")),
        };
        let text = format!(
            "{}{held}; {} used, cost {}, paid {} ({} ago)",
            agent.status,
            agent.usage,
            agent.cost,
            agent.paid,
            output::ago(agent.time, now)
        );
        lines.push(("agent", text));
    }
    if let Some(dispute) = &money.dispute {
        let text = format!(
            "the agent asks for {}. By this host's own measure and the tolerance it is {} at most, and \
             the host pays no more",
            dispute.asked, dispute.bound
        );
        lines.push(("dispute", text));
    }
    lines.extend(money.outlook.iter().map(|next| ("next", outlook(next, money, now))));
    lines
}

fn cheque(money: &MoneyView, now: u64) -> String {
    match &money.retry {
        None => format!("{} is being sent", money.paid),
        Some(retry) => format!(
            "{} was sent {} times in vain, again in {}: {}",
            money.paid,
            retry.attempts,
            output::ago(now, retry.at),
            retry.trouble
        ),
    }
}

fn outlook(next: &Outlook, money: &MoneyView, now: u64) -> String {
    let usage = |usage: &u64| match money.unit_type {
        UnitType::Units => format!("at a usage of {usage}"),
        UnitType::Seconds => format!("after {usage} s of use"),
    };
    match next {
        Outlook::HeldUntilPaid { balance } => format!("held until {balance} is paid"),
        Outlook::HoldsAtUsage { usage: at } => {
            format!("held {} unless more is paid until then", usage(at))
        }
        Outlook::PaysAtUsage { usage: at } => format!("the next cheque {}", usage(at)),
        Outlook::EndsAtUsage { usage: at, end } => format!("ends {}: {}", usage(at), end.as_str()),
        Outlook::EndsAt { time, end } => {
            format!("ends in {} otherwise: {}", output::ago(now, *time), end.as_str())
        }
    }
}
