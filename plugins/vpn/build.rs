//! Puts the manifest into the library.

use privatix_plugin_api::build::Package;

fn main() {
    Package::new("vpn", "d0dfbbb2-dd07-423a-8ce0-1e74ce50105b")
        .access_template("../../templates/vpn.access.json")
        .offering_template("../../templates/vpn.offering.json")
        .config_schema("vpn.config.json")
        .emit();
}
