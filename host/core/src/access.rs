//! Access: passwords and messages, made by the agent and taken in by the client.

use std::collections::BTreeMap;
use std::sync::Arc;

use privatix_plugin_api::message::{AccessMessage, ApiError, ClientKey, Done, ErrorName, Password};
use serde_json::Value;
use uuid::Uuid;

use super::channel::unknown;
use super::stored::{self, parsed};
use super::{AgentApi, Caller, ClientApi, CoreReply, Refused};
use privatix_base::clock;
use privatix_domain::access::{self, AccessParts, Binding, Expect};
use privatix_domain::billing::next_balance;
use privatix_domain::code::Code;
use privatix_domain::status::{Effect, Event, Hold};
use privatix_domain::template::{Template, Violation};
use privatix_store::{ChannelRow, ProductRow, Txn};

/// Where an agent takes payments, below its exchange URL.
const PAYMENTS: &str = "/v1/payments";

/// How long the first start of a channel waits for the receipt of its first cheque, in seconds.
const RECEIPT_WITHIN: u64 = 10;

impl AgentApi {
    pub(super) async fn auth_client(
        &self,
        caller: &Caller,
        key: ClientKey,
        password: &Password,
    ) -> Result<CoreReply, ApiError> {
        let channel = self.core.channel(caller, key).await?;
        if !self.core.inner.identity.is_password(key, &channel.order_hash, password) {
            return Err(ErrorName::BadClientPassword.into());
        }
        if !channel.state.status.allows_use() {
            return Err(ErrorName::NonActiveChannel.into());
        }
        Ok(CoreReply::Done(Done {}))
    }

    /// The newest access message for a channel, sealed to its client; made if the
    /// product's config has changed since the last one.
    ///
    /// # Errors
    /// `ChannelNotFound`; `ProductNotReady` while no valid message can be made.
    pub async fn access_envelope(&self, key: ClientKey) -> Result<Value, Refused> {
        let mut txn = self.core.inner.store.begin().await?;
        let channel = txn.channel_find(key).await?.ok_or_else(unknown)?;
        if let Some(envelope) = &channel.access
            && let Ok(envelope) = serde_json::from_str(envelope)
        {
            return Ok(envelope);
        }
        let product = txn.product_get(channel.product).await?.ok_or_else(unknown)?;
        let template = self.core.template(&channel.access_template).await?;
        let template = template.ok_or_else(|| not_ready("its access template is unusable"))?;
        let message = self.compose(&product, &template, key, &channel.order_hash)?;
        let envelope = self.seal(&channel, &message)?;
        let text = envelope.to_string();
        txn.channel_set_access(key, channel.access_serial, Some(&text)).await?;
        self.core.commit(txn).await?;
        Ok(envelope)
    }

    fn seal(&self, channel: &ChannelRow, message: &Value) -> Result<Value, Refused> {
        let to = channel.peer_sealing.as_deref().unwrap_or_default();
        let to = to.parse().map_err(|error| Refused::internal(&error))?;
        let binding = Binding {
            order_hash: channel.order_hash.clone(),
            channel: channel.id,
            template_hash: channel.access_template.clone(),
            serial: channel.access_serial,
        };
        // A system without randomness cannot go on; it would have failed at its first key.
        let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
        access::seal(message, &binding, &to, &self.core.inner.identity, &mut rng)
            .map_err(|error| Refused::internal(&error))
    }

    /// Whether a valid access message can be made from a product's present config.
    ///
    /// # Errors
    /// `ProductNotReady` with what is missing.
    pub(super) fn check_ready(
        &self,
        product: &ProductRow,
        template: &Arc<Template>,
    ) -> Result<(), Refused> {
        self.compose(product, template, ClientKey(Uuid::nil()), "").map(drop)
    }

    /// The access message of a channel, valid by its template.
    fn compose(
        &self,
        product: &ProductRow,
        template: &Template,
        channel: ClientKey,
        order_hash: &str,
    ) -> Result<Value, Refused> {
        let settings = &self.own.settings;
        let params: BTreeMap<String, String> =
            serde_json::from_str(&product.config).unwrap_or_default();
        let endpoint =
            settings.service_endpoint_address.as_deref().or(product.external_ip.as_deref());
        let message = access::compose(&AccessParts {
            template_hash: template.hash(),
            nonce: Uuid::new_v4(),
            channel,
            password: &self.core.inner.identity.password(channel, order_hash),
            payment_receiver_address: &format!("{}{PAYMENTS}", settings.exchange),
            service_endpoint_address: endpoint.unwrap_or_default(),
            additional_params: &params,
        });
        template.validate(&message).map_err(|violations| not_ready(&all(&violations)))?;
        Ok(message)
    }
}

impl ClientApi {
    pub(super) async fn get_access(
        &self,
        caller: &Caller,
        key: ClientKey,
    ) -> Result<CoreReply, ApiError> {
        let channel = self.core.channel(caller, key).await?;
        let text = channel.access.ok_or(ErrorName::AccessNotFound)?;
        let message: AccessMessage = serde_json::from_str(&text).map_err(|error| {
            tracing::error!(channel = %key, %error, "a stored access message cannot be read");
            ErrorName::Internal
        })?;
        Ok(CoreReply::Access(Box::new(message)))
    }

    /// Checks an envelope and keeps its message if it is newer than what is known.
    ///
    /// # Errors
    /// The code of the first check that failed.
    pub async fn access_received(&self, key: ClientKey, envelope: &Value) -> Result<(), Refused> {
        let channel = self.core.inner.store.channel_find(key).await?.ok_or_else(unknown)?;
        let noted = envelope.get("templateHash").and_then(Value::as_str).unwrap_or_default();
        let template = self.core.template(noted).await?;
        let expect = Expect {
            agent: stored::key(&channel)?,
            order_hash: &channel.order_hash,
            channel: key,
            last_serial: channel.access_serial,
        };
        let opened = access::open(envelope, &expect, &self.core.inner.identity, |hash| {
            template.filter(|template| template.hash() == hash)
        })
        .map_err(|error| Refused::because(error.code(), &error))?;
        self.check_payment_receiver(&channel, &opened.message).await?;
        let mut txn = self.core.inner.store.begin().await?;
        let row = txn.channel_find(key).await?.ok_or_else(unknown)?;
        if row.access.is_some() && row.access_serial >= opened.serial {
            // The same again, or one that was overtaken on its way.
            return Ok(());
        }
        txn.channel_set_access(key, opened.serial, Some(&opened.message.to_string())).await?;
        // What failed with the message before need not fail with this one, so it does not rest.
        let rests = row.access.is_some() && row.state.holds.contains(Hold::Fault);
        let (event, why) = if rests {
            (Event::HoldRemoved(Hold::Fault), "new access message")
        } else {
            (Event::AccessReady, "access received")
        };
        let state = self.core.apply(&mut txn, &row, event, why).await?;
        if row.access.is_some() && !rests && state.status.allows_use() {
            txn.channel_command(key, Effect::Start, clock::unix_now()).await?;
        }
        self.wait_for_receipt(&mut txn, &row).await?;
        self.core.commit(txn).await?;
        tracing::info!(channel = %key, serial = opened.serial, "access message received");
        Ok(())
    }

    /// A first login before the first cheque is there would be denied: the start of a channel that
    /// has to be paid for waits for the agent's receipt, but not for long.
    async fn wait_for_receipt(&self, txn: &mut Txn, before: &ChannelRow) -> Result<(), Refused> {
        let terms = self.core.terms_of(&before.offering).await?;
        let facts = txn.billing_get(before.id).await?.map(|row| self.facts(&row));
        let pays = facts.is_some_and(|facts| next_balance(&terms, &facts).is_some());
        if before.access.is_none() && pays {
            txn.channel_start_due(before.id, clock::unix_now() + RECEIPT_WITHIN).await?;
        }
        Ok(())
    }

    /// Cheques go where the offering said, unless the user allowed another place.
    async fn check_payment_receiver(
        &self,
        channel: &ChannelRow,
        message: &Value,
    ) -> Result<(), Refused> {
        let receiver = message.get("paymentReceiverAddress").and_then(Value::as_str);
        let receiver = receiver.unwrap_or_default();
        let row = self.core.inner.store.offering_get(&channel.offering).await?;
        let row = row.ok_or_else(|| Refused::not_found("its offering"))?;
        let allowed = self.own.settings.allow_foreign_payment_receiver;
        if allowed || parsed(&row)?.is_of_exchange(receiver) {
            return Ok(());
        }
        let text = format!("the payment receiver {receiver:?} is not at the agent's URL");
        Err(Refused::new(Code::ForeignPaymentReceiver, text))
    }
}

fn not_ready(what: &str) -> Refused {
    Refused::new(Code::ProductNotReady, format!("no valid access message can be made: {what}"))
}

pub(super) fn all(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
