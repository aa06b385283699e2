//! Packages that cannot be used: each is refused under its code, told of in full, and harms nobody;
//! and each can be put right.
//!
//! A table holds one kind of fault. All of its packages are dropped beside one healthy module.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use privatix_modules::registry::State;
use privatix_plugin_api::manifest::SECTION;
use serde_json::{Value, json};

use crate::support::module::{find, place};
use crate::support::refusal::{
    access, access_text, before_library, changed, check, incomplete, instead_of_library, library,
    manifest, prepared_library, refused, titled, told, untouched,
};
use crate::support::{Node, Package, wait_for};

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_that_are_no_library_for_this_machine() {
    // Offsets in the ELF header: class 4, type 16, machine 18.
    let not_elf = b"#!/bin/sh\necho I am no library\n";
    check(&[
        refused("text", "NotElf", library(|bytes| *bytes = not_elf.to_vec())),
        refused("empty", "NotElf", library(Vec::clear)),
        refused("cut-off", "Truncated", library(|bytes| bytes.truncate(bytes.len() / 2))),
        refused("machine", "WrongArchitecture", library(|bytes| bytes[18] = 0x08)),
        refused("class32", "WrongArchitecture", library(|bytes| bytes[4] = 1)),
        refused("big-endian", "WrongArchitecture", library(|bytes| bytes[5] = 2)),
        refused("executable", "NotSharedObject", library(|bytes| bytes[16] = 2)),
        refused("segments", "MalformedElf", library(|bytes| bytes[56..58].fill(0))),
        refused(
            "no-manifest",
            "NoManifest",
            library(|bytes| {
                let at = find(bytes, format!("\0{SECTION}\0").as_bytes()).expect("a name");
                bytes[at + 2] = b'q';
            }),
        ),
    ]);
}

#[test]
fn manifests_that_do_not_suit() {
    let text =
        |text: &'static str| changed(move |package| package.with_manifest_text(text.as_bytes()));
    check(&[
        refused("no-json", "BadManifest", text("{\"name\": ")),
        refused("no-object", "BadManifest", text("[]")),
        refused(
            "twice",
            "BadManifest",
            changed(|package| {
                let text = package.manifest().to_string().replacen('{', "{\"name\":\"x\",", 1);
                package.with_manifest_text(text.as_bytes())
            }),
        ),
        refused("bad-id", "BadManifest", manifest(|all| all["productId"] = "1".into())),
        refused(
            "bad-schema",
            "BadManifest",
            manifest(|all| all["configSchema"] = json!({"type": "number of sorts"})),
        ),
        refused(
            "too-new",
            "ApiTooNew",
            manifest(|all| all["serviceApi"] = json!({"min": 2, "max": 3})),
        ),
        refused(
            "too-old",
            "ApiTooOld",
            manifest(|all| all["serviceApi"] = json!({"min": 0, "max": 0})),
        ),
        refused("abort", "PanicAbort", manifest(|all| all["panic"] = "abort".into())),
        refused("misnamed", "NameMismatch", manifest(|all| all["name"] = "other".into())),
        refused("buyer", "RoleUnsupported", manifest(|all| all["roles"] = json!(["client"]))),
        refused("altered", "SealBroken", manifest(|all| all["seal"] = "1".repeat(64).into())),
        refused(
            "duplicate",
            "DuplicateProduct",
            manifest(|all| {
                all["productId"] = Package::faulty("good").manifest()["productId"].clone();
            }),
        ),
        refused(
            "layout",
            "LayoutMismatch",
            changed(|package| {
                let other = Package::wrong_layout().renamed(&package.name);
                let hashes = package.manifest()["templates"].clone();
                let other = other.with_manifest(|all| all["templates"] = hashes);
                Package { library: other.library, ..package }
            }),
        ),
    ]);
}

#[test]
fn packages_of_which_something_is_missing() {
    let all_but = |name: fn(&Package) -> String| {
        before_library(move |package, plugins| {
            fs::remove_file(plugins.join(name(package))).unwrap();
        })
    };
    check(&[
        incomplete("no-access", "TemplateMissing", all_but(Package::access_name)),
        incomplete("no-offering", "TemplateMissing", all_but(Package::offering_name)),
        incomplete("no-library", "LibraryMissing", instead_of_library(|_| ())),
    ]);
}

#[test]
fn templates_that_break_a_rule() {
    fn fields(template: &mut Value) -> &mut Value {
        &mut template["schema"]["properties"]
    }
    let field = |schema: Value| access(move |all| fields(all)["extra"] = schema.clone());
    check(&[
        refused("no-json", "InvalidJson", access_text("{", "")),
        refused("twice", "DuplicateKey", access_text("{", "{\"uiSchema\": {},")),
        refused("number", "NumberTooLarge", access_text("{", "{\"x-large\": 9007199254740992,")),
        refused("fraction", "NumberNotInteger", access_text("{", "{\"x-part\": 0.5,")),
        refused("form", "BadTemplateForm", changed(|package| package.with_access("[]"))),
        refused("schema", "InvalidSchema", field(json!({"minLength": "three"}))),
        refused("web", "RemoteReference", field(json!({"$ref": "http://example.com/a.json"}))),
        refused("file", "RemoteReference", field(json!({"$ref": "file:///etc/passwd"}))),
        refused("circle", "TemplateTooComplex", field(json!({"$ref": "#"}))),
        refused("pattern", "UnsupportedPattern", field(json!({"pattern": "^(a+)+\\1$"}))),
        refused("power", "UnsupportedPattern", field(json!({"pattern": "((a{999}){999}){999}"}))),
        refused(
            "draft",
            "UnknownDraft",
            access(|all| all["schema"]["$schema"] = "https://example.com/my-own".into()),
        ),
        refused(
            "short",
            "CoreFieldMissing",
            access(|all| {
                fields(all).as_object_mut().unwrap().remove("password").expect("a field");
            }),
        ),
        refused(
            "typed",
            "CoreFieldType",
            access(|all| fields(all)["password"] = json!({"type": "integer"})),
        ),
        refused(
            "optional",
            "CoreFieldNotRequired",
            access(|all| all["schema"]["required"] = json!(["templateHash"])),
        ),
        refused(
            "other",
            "TemplateHashMismatch",
            changed(|mut package| {
                package.access = titled(package.clone(), "another").access;
                package
            }),
        ),
        refused("huge", "TooLarge", changed(|package| titled(package, &"x".repeat(256 << 10)))),
        refused(
            "offering",
            "CoreFieldMissing",
            changed(|package| {
                let mut template: Value = serde_json::from_slice(&package.offering).unwrap();
                fields(&mut template).as_object_mut().unwrap().remove("supply").expect("a field");
                package.with_offering(&template.to_string())
            }),
        ),
    ]);
}

#[test]
fn files_that_others_could_have_made() {
    let library = |mode| prepared_library(move |path| chmod(path, mode));
    let template = |name: fn(&Package) -> String, mode| {
        before_library(move |package, plugins| chmod(&plugins.join(name(package)), mode))
    };
    let mut rows = vec![
        refused("all-write", "WritableByOthers", library(0o666)),
        refused("group-write", "WritableByOthers", library(0o664)),
        refused("template", "WritableByOthers", template(Package::access_name, 0o646)),
        refused("offering", "WritableByOthers", template(Package::offering_name, 0o664)),
    ];
    // Only root can give files away, and only root can read everything.
    if nix::unistd::geteuid().is_root() {
        let give = |path: &Path| chown(path, Some(12345), None).unwrap();
        rows.push(refused("stranger", "WrongOwner", prepared_library(give)));
        let give = before_library(move |package, plugins| {
            give(&plugins.join(package.access_name()));
        });
        rows.push(refused("stranger-text", "WrongOwner", give));
    } else {
        rows.push(refused("unreadable", "Unreadable", library(0o000)));
    }
    check(&rows);
}

#[test]
fn files_that_are_no_files() {
    // In the place of a template, which is a good one but for its kind.
    let template = |name: fn(&Package) -> String, make: fn(&Path, &Path)| {
        before_library(move |package, plugins| {
            let (path, moved) =
                (plugins.join(name(package)), plugins.join(format!(".{}", package.name)));
            fs::rename(&path, &moved).unwrap();
            make(&path, &moved);
        })
    };
    let link = |path: &Path, to: &Path| symlink(to, path).unwrap();
    check(&[
        refused(
            "link",
            "NotRegularFile",
            prepared_library(|path| {
                let library = path.with_extension("library");
                fs::rename(path, &library).unwrap();
                symlink(library, path).unwrap();
            }),
        ),
        refused(
            "link-nowhere",
            "NotRegularFile",
            instead_of_library(|path| symlink("/nowhere", path).unwrap()),
        ),
        refused("link-text", "NotRegularFile", template(Package::access_name, link)),
        refused(
            "directory",
            "NotRegularFile",
            instead_of_library(|path| fs::create_dir(path).unwrap()),
        ),
        // Whoever opens these waits for somebody to write.
        refused("pipe", "NotRegularFile", instead_of_library(fifo)),
        refused(
            "pipe-text",
            "NotRegularFile",
            template(Package::offering_name, |path, _| fifo(path)),
        ),
        refused(
            "vast",
            "TooLarge",
            instead_of_library(|path| {
                fs::File::create(path).unwrap().set_len((512 << 20) + 1).unwrap();
            }),
        ),
        refused(
            "two",
            "AmbiguousLibrary",
            Box::new(|package, plugins| {
                place(plugins, "two.so", &package.library);
                place(plugins, &package.library_name(), &package.library);
                place(plugins, &package.access_name(), &package.access);
                place(plugins, &package.offering_name(), &package.offering);
            }),
        ),
    ]);
}

fn fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
}

#[test]
fn names_that_no_module_can_have() {
    let mut node = Node::agent();
    node.run(&Package::faulty("good"));
    let long = "x".repeat(33);
    let names = ["Bad", "two words", "9lives", "-dash", "\u{fc}bel", "a.b", "\u{1b}[31mred", &long];
    let package = Package::faulty("good");
    for name in names {
        place(&node.plugins(), &format!("lib{name}.so"), &package.library);
    }
    for name in names {
        node.wait_problem(name, State::Refused, "InvalidName");
        let output = node.privatix(&["module", "explain", "--", name]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("InvalidName"), "{name}: {text}");
    }
    let output = node.privatix(&["module", "list"]);
    assert!(!output.stdout.contains(&0x1b), "a file's name steers the terminal");
    // Under a name that is one it is somebody else's library; without any name it is "lib".
    place(&node.plugins(), "lib.so", &package.library);
    node.wait_problem("lib", State::Refused, "NameMismatch");
    for name in names {
        fs::remove_file(node.plugins().join(format!("lib{name}.so"))).unwrap();
    }
    fs::remove_file(node.plugins().join("lib.so")).unwrap();
    wait_for("the names to be gone", || (node.names() == ["good"]).then_some(()));
    untouched(&mut node);
}

#[test]
fn a_directory_that_others_can_write() {
    let mut node = Node::stopped("agent", "");
    let plugins = node.plugins();
    Package::faulty("early").drop_into(&plugins);
    chmod(&plugins, 0o777);
    node.start();
    let view = node.wait_problem("early", State::Refused, "WritableByOthers");
    told(&node, &view);
    assert!(view.problem.unwrap().mend.starts_with("chmod go-w"));
    chmod(&plugins, 0o755);
    node.wait_state("early", State::Running);
    node.run(&Package::faulty("good"));
    // What runs already goes on, and it is told of.
    chmod(&plugins, 0o775);
    let view = node.wait("good", "told of", |view| view.candidate.is_some());
    let problem = view.candidate.and_then(|candidate| candidate.problem).expect("a reason");
    assert_eq!((view.state, problem.code.code()), (State::Running, "WritableByOthers"));
    chmod(&plugins, 0o700);
    node.wait("good", "well again", |view| view.candidate.is_none());
    untouched(&mut node);
}

#[test]
fn settings_that_are_not_valid() {
    let bad = "[modules.unknown]\nno_such_key = 1\n[modules.mistyped]\ntick_ms = \"fast\"\n\
               [modules.ranged]\ntick_ms = 0\n[modules.unasked]\nkey = 1\n";
    let mut node = Node::configured("agent", bad);
    node.run(&Package::faulty("good"));
    let names = ["unknown", "mistyped", "ranged", "unasked"];
    for name in names {
        let package = match name {
            "unasked" => Package::faulty(name).with_manifest(|all| {
                all.as_object_mut().unwrap().remove("configSchema").expect("a schema");
            }),
            _ => Package::faulty(name),
        };
        package.drop_into(&node.plugins());
    }
    for (name, found) in names.into_iter().zip(["no_such_key", "tick_ms", "tick_ms", "key"]) {
        let view = node.wait_problem(name, State::Refused, "BadConfiguration");
        told(&node, &view);
        let problem = view.problem.unwrap();
        assert!(problem.found.contains(found), "{problem:?}");
        assert!(problem.mend.contains(&format!("[modules.{name}]")), "{problem:?}");
    }
    untouched(&mut node);
    node.stop();
    node.reconfigure(|table| {
        let modules = table["modules"].as_table_mut().unwrap();
        modules.retain(|name, _| name == "ranged");
        modules["ranged"]["tick_ms"] = 1.into();
    });
    node.start();
    for name in names {
        node.wait_state(name, State::Running);
    }
}
