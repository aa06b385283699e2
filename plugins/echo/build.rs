//! Puts the manifest into the library.

use privatix_plugin_api::build::Package;

fn main() {
    Package::new("echo", "9054d725-820b-45b5-b254-34d359fb26b2")
        .access_template("echo.access.json")
        .offering_template("echo.offering.json")
        .config_schema("echo.config.json")
        .emit();
}
