//! Puts the manifest into the library.

use privatix_plugin_api::build::Package;

fn main() {
    Package::new("wayward", "6d0f7bb4-93f7-4f0f-a0c5-0a2a7b6d1e55")
        .access_template("wayward.access.json")
        .offering_template("wayward.offering.json")
        .config_schema("wayward.config.json")
        .emit();
}
