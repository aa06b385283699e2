//! `SetProductConfig`.

use std::collections::BTreeMap;

use privatix_plugin_api::message::{ApiError, Done, ErrorName};

use super::{AgentApi, Caller, CoreReply, internal};
use privatix_base::clock;
use privatix_store::StoreError;

/// The key that is not passed on but says where the agent is.
const EXTERNAL_IP: &str = "externalIP";

impl AgentApi {
    /// Has all access messages made anew if what the configuration adds to them has
    /// changed since the host ran last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn settings_noted(&self) -> Result<(), StoreError> {
        let settings = &self.own.settings;
        let endpoint = settings.service_endpoint_address.as_deref().unwrap_or_default();
        let value = format!("{}\n{endpoint}", settings.exchange);
        let products = self.core.inner.store.product_list().await?;
        let mut txn = self.core.inner.store.begin().await?;
        if txn.note_changed("access settings", &value).await? {
            for product in products {
                txn.channel_reissue(product.id).await?;
            }
            tracing::info!("the agent's addresses changed; access messages are made anew");
        }
        txn.commit().await.map(drop)
    }

    pub(super) async fn set_product_config(
        &self,
        caller: &Caller,
        mut config: BTreeMap<String, String>,
    ) -> Result<CoreReply, ApiError> {
        if config.is_empty() || config.contains_key("") {
            return Err(ErrorName::BadProductConfig.into());
        }
        let external_ip = config.remove(EXTERNAL_IP);
        let text = serde_json::to_string(&config)
            .map_err(|error| ApiError::with(ErrorName::BadProductConfig, error))?;
        let mut txn = self.core.inner.store.begin().await.map_err(internal)?;
        let now = clock::unix_now();
        let external_ip = external_ip.as_deref();
        let changed = txn.product_set_config(caller.product, &text, external_ip, now).await;
        if changed.map_err(internal)? {
            let channels = txn.channel_reissue(caller.product).await.map_err(internal)?;
            txn.commit().await.map_err(internal)?;
            tracing::info!(module = caller.name, channels, "the product's config changed");
        }
        Ok(CoreReply::Done(Done {}))
    }
}
