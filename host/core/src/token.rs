//! Tokens: what a standalone module shows to be the module of its product.
//!
//! A token is 256 random bits, so a plain SHA-256 is all that is needed to keep it: there is nothing to
//! be guessed that a slow hash would protect. What is presented is hashed before it is compared, and
//! hashes are compared in constant time, so that no answer's time says how much of one was right.
//! Absent here: whether the module runs.

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use privatix_plugin_api::json::hex;
use rand_core::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use uuid::Uuid;

use super::{ModuleApi, OperatorApi, Refused, Service};
use privatix_base::clock;
use privatix_store::StoreError;

/// A new token; it cannot be shown again.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NewToken {
    /// The token itself.
    pub token: String,
}

/// That somebody has shown a product's token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proof {
    product: Uuid,
    hash: String,
}

impl Proof {
    /// The product.
    pub fn product(&self) -> Uuid {
        self.product
    }
}

/// What is known of tokens, so that not every call has to ask the database.
#[derive(Default)]
pub(super) struct Tokens {
    known: RwLock<Option<Arc<Vec<Proof>>>>,
    changed: watch::Sender<u64>,
}

impl ModuleApi {
    /// Whose token this is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token_proof(&self, token: &str) -> Result<Option<Proof>, StoreError> {
        let hash = hash(token);
        let known = self.core.tokens().await?;
        // All of them, whichever it is.
        Ok(known
            .iter()
            .filter(|proof| is_equal(&proof.hash, &hash))
            .fold(None, |_, it| Some(it.clone())))
    }

    /// How many products have one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token_count(&self) -> Result<usize, StoreError> {
        Ok(self.core.tokens().await?.len())
    }

    /// Whether the token that was shown is still the product's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token_is_valid(&self, proof: &Proof) -> Result<bool, StoreError> {
        Ok(self.core.tokens().await?.contains(proof))
    }

    /// Changes whenever a token is void.
    pub fn tokens_changed(&self) -> watch::Receiver<u64> {
        self.core.inner.tokens.changed.subscribe()
    }
}

impl OperatorApi {
    /// Makes a token for the product of a module; the one before is void from then on.
    ///
    /// # Errors
    /// `NotFound` where no such module has been registered.
    pub async fn token_make(&self, module: &str) -> Result<NewToken, Refused> {
        let product = self.core.product_named(module).await?.id;
        let mut secret = [0; 32];
        // A system without randomness cannot go on; it would have failed at its first key.
        rand_core::UnwrapErr(getrandom::SysRng).fill_bytes(&mut secret);
        let token = URL_SAFE_NO_PAD.encode(secret);
        let mut txn = self.core.inner.store.begin().await?;
        txn.token_set(product, &hash(&token), clock::unix_now()).await?;
        txn.commit().await?;
        let tokens = &self.core.inner.tokens;
        *tokens.known.write().unwrap_or_else(PoisonError::into_inner) = None;
        tokens.changed.send_modify(|count| *count += 1);
        tracing::info!(module, "a new token was made; the one before is void");
        Ok(NewToken { token })
    }
}

impl Service {
    async fn tokens(&self) -> Result<Arc<Vec<Proof>>, StoreError> {
        let tokens = &self.inner.tokens;
        let known = tokens.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let version = *tokens.changed.borrow();
        let rows = self.inner.store.token_list().await?;
        let read: Vec<_> =
            rows.into_iter().map(|(product, hash)| Proof { product, hash }).collect();
        let read = Arc::new(read);
        let mut known = tokens.known.write().unwrap_or_else(PoisonError::into_inner);
        // One made meanwhile must not be forgotten over this.
        if *tokens.changed.borrow() == version {
            *known = Some(Arc::clone(&read));
        }
        Ok(read)
    }
}

fn hash(token: &str) -> String {
    hex(&Sha256::digest(token))
}

fn is_equal(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}
