//! What is asked of the operator's API beyond what the core names, shared by both its ends.

use serde::{Deserialize, Serialize};

/// To whom a product goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Transfer {
    /// The module's name.
    pub module: String,
}
