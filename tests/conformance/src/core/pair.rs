//! An agent and a client in one process: what they would send each other is handed over.
//!
//! Only the way is missing: offerings, orders, accounts and access messages are made, signed,
//! sealed, opened and checked by the two cores as over a network.

use std::time::Duration;

use privatix_base::config::ModuleTimeouts;
use privatix_core::{AgentApi, Caller, ClientApi, Draft, OrderAnswer, Refused, Source};
use privatix_domain::code::Code;
use privatix_domain::status::Event;
use privatix_plugin_api::manifest::Role;
use privatix_plugin_api::message::{ClientKey, CoreRequest, Exercised, ModuleRequest, Status};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Bench, Call, PATIENCE, Party, is_unsupported, program, wait_for};
use crate::case::{Finding, failed};

/// How often the two speak to each other if nothing wakes them.
const INTERVAL: Duration = Duration::from_millis(50);

/// How long nothing has to come before it counts as nothing.
const A_WHILE: Duration = Duration::from_secs(3);

/// What most cases have carried, in smallest units, unless `NAME.check.toml` says otherwise.
pub(crate) const USUAL_AMOUNT: u64 = 100_000;

/// What `exercise` is asked for, in the same measure, and never more; for the documentation.
pub(crate) const AMOUNTS: [u64; 4] = [1, 1000, USUAL_AMOUNT, 20 * USUAL_AMOUNT];

/// An amount where another one is the usual.
pub(crate) fn scaled(amount: u64, usual: u64) -> u64 {
    let scaled = u128::from(amount) * u128::from(usual) / u128::from(USUAL_AMOUNT);
    u64::try_from(scaled).unwrap_or(u64::MAX).max(1)
}

/// See the module's documentation.
pub struct Pair {
    /// The side that sells.
    pub agent: Party,
    /// The side that buys.
    pub client: Party,
    buyer: ClientApi,
    offering: String,
    usual: u64,
    trading: JoinHandle<()>,
}

impl Pair {
    /// Both sides with the modules that the package has for them, and an offering fetched.
    ///
    /// # Errors
    /// The first step that did not go well; a skip where the module does not sell.
    pub async fn new(bench: &Bench) -> Result<Self, Finding> {
        Self::with(bench, |_| {}).await
    }

    /// The same with other deadlines.
    ///
    /// # Errors
    /// As [`Pair::new`].
    pub async fn with(
        bench: &Bench,
        change: impl Fn(&mut ModuleTimeouts),
    ) -> Result<Self, Finding> {
        let roles = bench.roles()?;
        let mut agent = Party::core(bench, Role::Agent).await?;
        change(&mut agent.timeouts);
        if agent.package().offering.is_none() {
            return Err(Finding::Skipped("there is no offering template to trade by".into()));
        }
        if roles.contains(&Role::Agent) {
            agent.bring_up().await?;
        }
        let mut client = Party::core(bench, Role::Client).await?;
        change(&mut client.timeouts);
        if roles.contains(&Role::Client) {
            client.bring_up().await?;
        }
        Self::of(bench, agent, client).await
    }

    /// Both sides, to be brought up by the case: neither has a module yet.
    ///
    /// # Errors
    /// As [`Pair::new`].
    pub async fn of(bench: &Bench, agent: Party, client: Party) -> Result<Self, Finding> {
        if !agent.has_module() {
            speak_for_the_agent(bench, &agent).await?;
        }
        let (seller, buyer) = (agent.service.party(), client.service.party());
        let (seller, buyer) = (seller.agent()?.clone(), buyer.client()?.clone());
        let offering = publish(bench, &seller).await?;
        let published = seller.offerings_published("", u32::MAX).await?.offerings;
        let key = published.first().and_then(|offering| offering.get("agentPublicKey"));
        let key = key.and_then(Value::as_str).unwrap_or_default().parse()?;
        buyer.agent_pin(&key).await?;
        for message in &published {
            let exchange = message.get("exchange").and_then(Value::as_str).unwrap_or_default();
            let from = Source { agent: &key, url: exchange, product: None };
            buyer.offering_fetched(message, from).await?;
        }
        let sold = agent.service.outbox().changes();
        let trading = tokio::spawn(trade(seller, sold, buyer.clone()));
        let usual = bench.subject.settings.amount.map_or(USUAL_AMOUNT, std::num::NonZero::get);
        Ok(Self { agent, client, buyer, offering, usual, trading })
    }

    /// A new channel, not yet looked at.
    ///
    /// # Errors
    /// An order that is refused.
    pub async fn order(&self) -> Result<ClientKey, Finding> {
        let order = self.buyer.order_make(&self.offering, None, false).await?;
        wait_for("the agent's answer to an order", || async {
            Ok(self.client.service.operator().order_view(&order.hash).await?.channel)
        })
        .await
    }

    /// A new channel, active on every side that has a module.
    ///
    /// # Errors
    /// A channel that does not become so.
    pub async fn channel(&self) -> Result<ClientKey, Finding> {
        let channel = self.order().await?;
        self.active(channel).await?;
        Ok(channel)
    }

    /// Waits until a channel is active on every side that has a module.
    ///
    /// # Errors
    /// A channel that does not become so.
    pub async fn active(&self, channel: ClientKey) -> Result<(), Finding> {
        for party in self.parties() {
            self.status(party, channel, Status::Active).await?;
            // By a session it is active before `start` has been answered.
            self.answered(party, channel, "start").await?;
        }
        Ok(())
    }

    /// Waits until a side's module has answered what it was told of a channel.
    ///
    /// # Errors
    /// An answer that does not come.
    pub async fn answered(
        &self,
        party: &Party,
        channel: ClientKey,
        command: &str,
    ) -> Result<(), Finding> {
        wait_for(&format!("the {}'s answer to {command}", party.role), || async {
            let told = party.store.channel_commands(u64::MAX).await?;
            Ok((!told.iter().any(|command| command.channel == channel)).then_some(()))
        })
        .await
    }

    /// How much the service is asked for where a case asks for so much: what `amount` of
    /// `NAME.check.toml` stands for `USUAL_AMOUNT`, 100 000.
    pub fn amount(&self, usual: u64) -> u64 {
        scaled(usual, self.usual)
    }

    /// Both sides that have a module.
    pub fn parties(&self) -> impl Iterator<Item = &Party> {
        [&self.agent, &self.client].into_iter().filter(|party| party.has_module())
    }

    /// Waits until a channel has a status on one side.
    ///
    /// # Errors
    /// A failure that says which status it has instead.
    pub async fn status(
        &self,
        party: &Party,
        channel: ClientKey,
        status: Status,
    ) -> Result<(), Finding> {
        let what = format!("the {}'s channel to be {status}", party.role);
        let waited = wait_for(&what, || async {
            // The client may not have heard of it yet.
            let view = party.service.operator().channel_view(channel).await;
            Ok(view.ok().filter(|view| view.status == status).map(drop))
        })
        .await;
        match waited {
            Ok(()) => Ok(()),
            Err(finding) if program::death().is_some() => Err(finding),
            Err(_) => {
                let view = party.service.operator().channel_view(channel).await?;
                let (is, why) = (view.status, view.reason);
                let logged = last_words(party);
                Err(failed(format!("waited {PATIENCE:?} for {what}; it is {is} ({why}){logged}")))
            }
        }
    }

    /// A user's command on one side.
    ///
    /// # Errors
    /// A command that is refused.
    pub async fn command(
        &self,
        party: &Party,
        channel: ClientKey,
        event: Event,
    ) -> Result<(), Finding> {
        party.service.operator().channel_command(channel, event).await?;
        Ok(())
    }

    /// Has the service itself carry about so much; returns how much it was.
    ///
    /// # Errors
    /// A skip where the module has no such hook; a failure where the channel did not carry it.
    pub async fn exercise(&self, channel: ClientKey, amount: u64) -> Result<u64, Finding> {
        self.exercise_within(channel, amount, PATIENCE).await?.map_err(failed)
    }

    /// The same, where it may have to fail: a service that does not answer for a while is one that
    /// carries nothing.
    ///
    /// # Errors
    /// A skip where the module has no such hook.
    pub async fn try_exercise(
        &self,
        channel: ClientKey,
        amount: u64,
    ) -> Result<Result<u64, String>, Finding> {
        self.exercise_within(channel, amount, A_WHILE).await
    }

    /// The same with the time that carrying may take.
    ///
    /// # Errors
    /// As [`Pair::try_exercise`].
    pub async fn exercise_patiently(
        &self,
        channel: ClientKey,
        amount: u64,
    ) -> Result<Result<u64, String>, Finding> {
        self.exercise_within(channel, amount, PATIENCE).await
    }

    async fn exercise_within(
        &self,
        channel: ClientKey,
        amount: u64,
        within: Duration,
    ) -> Result<Result<u64, String>, Finding> {
        let amount = self.amount(amount);
        let request = ModuleRequest::Exercise { client_key: channel, amount };
        for party in [&self.client, &self.agent].into_iter().filter(|party| party.has_module()) {
            match party.module()?.call::<Exercised>(&request, within).await {
                Ok(Exercised { moved }) => return Ok(Ok(moved)),
                Err(error) if is_unsupported(&error) => {}
                Err(error) => return Ok(Err(format!("exercise: {}", crate::chain(&error)))),
            }
        }
        Err(Finding::Skipped("the module has no `exercise` hook, so nothing uses it".into()))
    }

    /// Waits until a side has on disk that a channel used at least so much.
    ///
    /// # Errors
    /// A failure that says how much it has.
    pub async fn used(&self, party: &Party, channel: ClientKey, least: u64) -> Result<(), Finding> {
        let waited = wait_for("usage", || async {
            Ok((party.usage(channel).await? >= least).then_some(()))
        });
        if waited.await.is_ok() {
            return Ok(());
        }
        let used = party.usage(channel).await?;
        let refused: Vec<_> = party.script.calls(Call::UpdateSession);
        let refused = refused.iter().rev().find_map(|call| call.error());
        let answered =
            refused.map(|name| format!("; a report was answered `{name}`")).unwrap_or_default();
        Err(failed(format!(
            "{least} were carried, and {PATIENCE:?} later the {} has {used} on disk{answered}",
            party.role
        )))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.trading.abort();
    }
}

/// Says what clients are told, in the place of an agent's module.
async fn speak_for_the_agent(bench: &Bench, agent: &Party) -> Result<(), Finding> {
    let mut config = bench.subject.settings.access.clone();
    config.entry("externalIP".to_owned()).or_insert_with(|| "127.0.0.1".to_owned());
    let caller = Caller { product: agent.product(), name: bench.name().to_owned() };
    agent.service.modules().call(&caller, CoreRequest::SetProductConfig { config }).await?;
    Ok(())
}

/// The newest of what a module has logged, for a person who looks for the cause.
fn last_words(party: &Party) -> String {
    let events = party.script.events();
    let newest: Vec<String> = events
        .iter()
        .rev()
        .filter(|event| event.level <= privatix_plugin_api::message::LogLevel::Info)
        .take(3)
        .map(|event| {
            let fields: Vec<_> =
                event.fields.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("{} {}", event.message, fields.join(" ")).trim().to_owned()
        })
        .collect();
    if newest.is_empty() { String::new() } else { format!("; it logged: {}", newest.join(" / ")) }
}

/// Publishes an offering, once the module has said what clients are told.
async fn publish(bench: &Bench, agent: &AgentApi) -> Result<String, Finding> {
    let draft = Draft { product: bench.name().to_owned(), fields: draft(bench) };
    let last = std::sync::Mutex::new(None);
    let made = wait_for("an offering", || async {
        match agent.offering_create(draft.clone()).await {
            Ok(view) => Ok(Some(view.hash)),
            Err(error) if error.code == Code::ProductNotReady => {
                *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                Ok(None)
            }
            Err(error) => Err(Finding::from(error)),
        }
    })
    .await;
    let last: Option<Refused> = last.into_inner().unwrap_or_default();
    made.map_err(|error| last.map_or(error, Finding::from))
}

/// The fields of an offering without a price, with what `NAME.check.toml` says of it.
pub(crate) fn draft(bench: &Bench) -> Map<String, Value> {
    let fields = json!({
        "serviceName": "checked", "country": "NL", "supply": 100_000, "unitName": "MiB",
        "unitType": "units", "unitSize": 1_048_576, "billingType": "prepaid", "setupPrice": 0,
        "unitPrice": 0, "minUnits": 0, "freeUnits": 0, "billingInterval": 1, "additionalParams": {},
    });
    let mut fields = fields.as_object().cloned().unwrap_or_default();
    fields.extend(bench.subject.settings.offering.clone());
    fields
}

/// Hands over what either has for the other, until it is ended.
async fn trade(agent: AgentApi, mut sold: watch::Receiver<u64>, client: ClientApi) {
    let mut bought = client.changes();
    loop {
        // What does not work now is tried again; a case waits for what has to come of it.
        let _ = exchange(&agent, &client).await;
        // Or it would wake itself by what it has just written. What others wrote meanwhile is seen
        // after the interval.
        sold.borrow_and_update();
        bought.borrow_and_update();
        tokio::select! {
            _ = sold.changed() => {}
            _ = bought.changed() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn exchange(agent: &AgentApi, client: &ClientApi) -> Result<(), Refused> {
    for (hash, message, _) in client.orders_waiting().await? {
        if let OrderAnswer::Accepted(reply) = agent.order_received(&message).await? {
            client.order_replied(&hash, &reply).await?;
        }
    }
    for followed in client.channels_followed().await? {
        let channel = followed.channel;
        if followed.ended {
            agent.channel_ended(channel).await?;
        }
        let account = agent.account(channel).await?;
        let newer = client.account_received(channel, &account).await?;
        if newer || (followed.serial == 0 && !followed.ended) {
            let envelope = agent.access_envelope(channel).await?;
            client.access_received(channel, &envelope).await?;
        }
    }
    Ok(())
}
