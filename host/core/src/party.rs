//! Facades: what each audience may ask of the core. A caller that must not do something is given a
//! facade without it, so that the compiler says no, and not a check at run time.
//!
//! What a facade does stands in the file of the thought (`order/agent.rs`, `cheque.rs`, …). All of
//! them share one [`Service`] and are cheap to clone.

use std::sync::Arc;

use privatix_plugin_api::manifest::Role;

use super::{AgentPart, ClientPart, Part, Refused, Service};
use privatix_domain::code::Code;

/// The side of this host, with what only this side does. A host has one of the two for good.
#[derive(Clone)]
pub enum Party {
    /// It sells.
    Agent(AgentApi),
    /// It buys.
    Client(ClientApi),
}

impl Party {
    /// What only an agent does.
    ///
    /// # Errors
    /// `WrongRole` on a client: for the edges, where the role is not known before somebody asks.
    pub fn agent(&self) -> Result<&AgentApi, Refused> {
        match self {
            Self::Agent(agent) => Ok(agent),
            Self::Client(_) => Err(wrong_role("an agent")),
        }
    }

    /// What only a client does.
    ///
    /// # Errors
    /// `WrongRole` on an agent, as with [`Party::agent`].
    pub fn client(&self) -> Result<&ClientApi, Refused> {
        match self {
            Self::Client(client) => Ok(client),
            Self::Agent(_) => Err(wrong_role("a client")),
        }
    }
}

fn wrong_role(who: &str) -> Refused {
    Refused::new(Code::WrongRole, format!("only {who} does that"))
}

/// What only an agent does: its offerings, the orders and requests of its clients, their cheques, and
/// the judging of its channels.
#[derive(Clone)]
pub struct AgentApi {
    pub(crate) core: Service,
    pub(crate) own: Arc<AgentPart>,
}

/// What only a client does: orders, what it asks of its agents and learns from them, and its cheques.
#[derive(Clone)]
pub struct ClientApi {
    pub(crate) core: Service,
    pub(crate) own: Arc<ClientPart>,
}

/// What an operator asks of a host of either side; [`OperatorApi::party`] has the rest.
#[derive(Clone)]
pub struct OperatorApi {
    pub(crate) core: Service,
    pub(crate) party: Party,
}

impl OperatorApi {
    /// The side of this host, for what only one side does.
    pub fn party(&self) -> &Party {
        &self.party
    }
}

/// What modules have still to be told, and what they answered: for who delivers commands and for who
/// brings modules up.
#[derive(Clone)]
pub struct Outbox {
    pub(crate) core: Service,
}

/// What a host does for itself: it begins and ends a run, registers the products of its modules, and
/// keeps a record of their libraries.
#[derive(Clone)]
pub struct Upkeep {
    pub(crate) core: Service,
}

impl Service {
    /// What only this host's side does.
    pub fn party(&self) -> Party {
        let core = self.clone();
        match &self.inner.part {
            Part::Agent(own) => Party::Agent(AgentApi { core, own: Arc::clone(own) }),
            Part::Client(own) => Party::Client(ClientApi { core, own: Arc::clone(own) }),
        }
    }

    /// What an operator asks for.
    pub fn operator(&self) -> OperatorApi {
        OperatorApi { core: self.clone(), party: self.party() }
    }

    /// What modules are told.
    pub fn outbox(&self) -> Outbox {
        Outbox { core: self.clone() }
    }

    /// What the host does for itself.
    pub fn upkeep(&self) -> Upkeep {
        Upkeep { core: self.clone() }
    }

    /// This party's side.
    pub fn role(&self) -> Role {
        match &self.inner.part {
            Part::Agent(_) => Role::Agent,
            Part::Client(_) => Role::Client,
        }
    }
}
