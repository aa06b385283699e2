//! `SetProductConfig`.

use std::collections::BTreeMap;

use privatix_plugin_api::message::{ApiError, Done, ErrorName};

use super::{Caller, CoreReply, Service, internal};
use crate::clock;

/// The key that is not passed on but says where the agent is.
const EXTERNAL_IP: &str = "externalIP";

impl Service {
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
        let mut txn = self.inner.store.begin().await.map_err(internal)?;
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
