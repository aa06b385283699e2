//! Writes a manifest for the example in this crate's documentation, so that it compiles as shown.
//! A real module's build script uses `privatix_plugin_api::build::Package` instead.

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let out =
        std::env::var_os("OUT_DIR").ok_or_else(|| std::io::Error::other("OUT_DIR is not set"))?;
    std::fs::write(std::path::Path::new(&out).join("privatix_manifest.rs"), "b\"{}\"")
}
