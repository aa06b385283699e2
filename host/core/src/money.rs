//! The money of a channel as its user sees it.

use privatix_plugin_api::message::{ClientKey, Status};
use serde::{Deserialize, Serialize};

use super::cheque::{Retry, retry};
use super::{ClientApi, OperatorApi, Party, Refused};
use privatix_base::clock::{self, UnixSeconds};
use privatix_domain::account::Account;
use privatix_domain::billing::{self, Dispute, Outlook};
use privatix_domain::offering::UnitType;
use privatix_domain::status::has_ended;
use privatix_store::BillingRow;

/// What a channel's use costs and what is paid for it, in the smallest unit of money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct MoneyView {
    /// What its usage is counted in.
    pub unit_type: UnitType,
    /// Smallest units in one unit.
    pub unit_size: u64,
    /// Price of one unit.
    pub unit_price: u64,
    /// What use costs by this side's measure.
    pub cost: u64,
    /// The balance of the best cheque, received or signed.
    pub paid: u64,
    /// What the client promised to spend at most.
    pub deposit: u64,
    /// What happens next, if nothing else does.
    pub outlook: Vec<Outlook>,
    /// The client: what its agent has signed last.
    pub agent: Option<AgentSaid>,
    /// The client: what the agent asks for, and what is paid at most.
    pub dispute: Option<DisputeView>,
    /// The client: whether the best cheque is not acknowledged yet.
    pub unsent: bool,
    /// The client: when it is sent again, and why.
    pub retry: Option<Retry>,
}

/// What an agent has signed of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentSaid {
    /// The status on its side.
    pub status: Status,
    /// Why it may not be active there.
    pub holds: Vec<String>,
    /// What was used by its measure.
    pub usage: u64,
    /// What that costs.
    pub cost: u64,
    /// What it has been paid.
    pub paid: u64,
    /// When it said so, Unix time.
    pub time: UnixSeconds,
}

/// The agent asks for more than the own meter allows for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DisputeView {
    /// What it says that use has cost.
    pub asked: u64,
    /// What is paid at most.
    pub bound: u64,
}

impl OperatorApi {
    /// The money of a channel: what is known of it in one row. What was said and sent is added by
    /// [`OperatorApi::money_in_full`].
    pub(super) async fn money(&self, row: &BillingRow) -> Result<Option<MoneyView>, Refused> {
        let Some(terms) = self.core.terms(&row.offering).await? else { return Ok(None) };
        let (outlook, dispute) = match &self.party {
            Party::Agent(_) if has_ended(row.state.status) => (Vec::new(), None),
            Party::Agent(agent) => {
                (billing::agent_outlook(&terms, &agent.facts(row), clock::unix_now()), None)
            }
            Party::Client(client) => {
                let facts = client.facts(row);
                (billing::client_outlook(&terms, &facts), billing::dispute(&terms, &facts))
            }
        };
        Ok(Some(MoneyView {
            unit_type: terms.unit_type,
            unit_size: terms.unit_size,
            unit_price: terms.unit_price,
            cost: terms.cost(row.usage, row.deposit),
            paid: row.paid,
            deposit: row.deposit,
            outlook,
            agent: None,
            dispute: dispute.map(|Dispute { asked, bound }| DisputeView { asked, bound }),
            unsent: false,
            retry: None,
        }))
    }

    /// The money of a channel with what its agent has signed and what is on its way.
    pub(super) async fn money_in_full(
        &self,
        row: &BillingRow,
    ) -> Result<Option<MoneyView>, Refused> {
        let mut view = self.money(row).await?;
        if let (Some(view), Party::Client(client)) = (&mut view, &self.party) {
            view.agent = client.agent_said(row.id).await?;
            if let Some(cheque) = self.core.inner.store.cheque_get(row.id).await? {
                (view.unsent, view.retry) = (cheque.due.is_some(), retry(&cheque));
            }
        }
        Ok(view)
    }
}

impl ClientApi {
    async fn agent_said(&self, channel: ClientKey) -> Result<Option<AgentSaid>, Refused> {
        let Some(text) = self.core.inner.store.account_get(channel).await? else { return Ok(None) };
        let account: Account =
            serde_json::from_str(&text).map_err(|error| Refused::internal(&error))?;
        Ok(Some(AgentSaid {
            status: account.status,
            holds: account.holds,
            usage: account.usage,
            cost: account.cost,
            paid: account.paid,
            time: account.time,
        }))
    }
}
