//! Puts the manifest into the library.

use privatix_plugin_api::build::Package;

fn main() {
    Package::new("proxy", "b155838d-5d95-4380-945a-49fe0d90f54f")
        .access_template("../../templates/proxy.access.json")
        .offering_template("../../templates/proxy.offering.json")
        .config_schema("proxy.config.json")
        .emit();
}
