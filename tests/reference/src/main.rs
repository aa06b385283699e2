//! Writes the generated files of `docs/reference`. `cargo xtask reference` runs it.

#![allow(clippy::print_stdout)]

use std::fs;
use std::io;

fn main() -> io::Result<()> {
    let directory = privatix_reference::directory();
    for name in privatix_reference::GENERATED {
        match fs::remove_dir_all(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let files = privatix_reference::files();
    for (path, text) in &files {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    println!("wrote {} files to {}", files.len(), directory.display());
    Ok(())
}
