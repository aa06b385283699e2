//! The two templates, and what messages are made by them.

use privatix_domain::code::Code;
use privatix_domain::present::{self, MASK};
use privatix_domain::template::{Template, TemplateKind};
use privatix_modules::problem;
use serde_json::{Value, json};

use super::abi::first_role;
use super::package::refusals;
use crate::case::{Case, Finding, case, ensure, failed};
use crate::core::Bench;

const JSON: &[Code] = &[
    Code::InvalidJson,
    Code::DuplicateKey,
    Code::NumberTooLarge,
    Code::NumberNotInteger,
    Code::TooDeep,
    Code::BadTemplateForm,
    Code::TemplateTooLarge,
];
const SCHEMA: &[Code] =
    &[Code::UnknownDraft, Code::TemplateTooComplex, Code::UnsupportedPattern, Code::InvalidSchema];
const REFERENCES: &[Code] = &[Code::RemoteReference];
const FIELDS: &[Code] = &[Code::CoreFieldMissing, Code::CoreFieldType, Code::CoreFieldNotRequired];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, ids) in [
        (
            TemplateKind::Access,
            [
                "templates.access-json",
                "templates.access-schema",
                "templates.access-references",
                "templates.access-fields",
            ],
        ),
        (
            TemplateKind::Offering,
            [
                "templates.offering-json",
                "templates.offering-schema",
                "templates.offering-references",
                "templates.offering-fields",
            ],
        ),
    ] {
        let [json, schema, references, fields] = ids;
        cases.extend([
            rule(
                kind,
                json,
                "It is JSON without duplicate keys, large numbers or fractions.",
                "docs/templates.md#form: every message and template is JSON",
                JSON,
            )
            .after(&["package.files"]),
            rule(
                kind,
                schema,
                "It is a JSON Schema of a known draft, and not too much work.",
                "docs/templates.md#form: Registration checks: known draft",
                SCHEMA,
            )
            .after(&[json]),
            rule(
                kind,
                references,
                "It refers to nothing outside of itself.",
                "docs/templates.md#limits: no reference outside the document",
                REFERENCES,
            )
            .after(&[schema]),
            rule(
                kind,
                fields,
                "It declares the core fields with their types.",
                "docs/templates.md#core-fields: core fields declared with the right types",
                FIELDS,
            )
            .after(&[references]),
        ]);
    }
    cases.extend([
        refusals(
            "templates.hash",
            "The templates are those that the library was built with.",
            "docs/modules.md#what-is-checked: A template beside it with another hash is refused",
            &[problem::Code::TemplateHashMismatch],
        )
        .after(&["manifest.panic", "templates.access-fields", "templates.offering-fields"])
        .mend("build the library again, and take all three files from one build"),
        case(
            "templates.offering-filled",
            "An offering that says what it has to can be made by the offering template.",
            "docs/templates.md#core-fields: Valid by the template when made and when received",
        )
        .after(&["templates.hash"])
        .mend("where the template wants fields of its own, give the kit values in [offering] of NAME.check.toml")
        .run(offering_filled),
        case(
            "templates.password",
            "A person who looks at an access message does not see the password without asking.",
            "docs/templates.md#form: `uiSchema` decides how a message is shown to a person",
        )
        .after(&["templates.hash"])
        .mend("add \"password\": {\"ui:widget\": \"password\"} to the access template's uiSchema")
        .run(password),
        case(
            "package.accepted",
            "A host takes the package in, for each of its roles.",
            "docs/modules.md#installing: Dropping these files into the plugins directory is the whole installation",
        )
        .after(&["templates.hash", "manifest.settings", "manifest.roles"])
        .run(|bench: Bench| async move {
            for role in bench.roles()? {
                bench.examine(role)?.map_err(|problem| {
                    failed(format!("as {role}: {problem}; required is {}; {}", problem.required, problem.mend))
                })?;
            }
            Ok(())
        }),
    ]);
    cases
}

fn rule(
    kind: TemplateKind,
    id: &'static str,
    sentence: &'static str,
    rule: &'static str,
    codes: &'static [Code],
) -> Case {
    case(id, sentence, rule)
        .mend("correct the template; a library is then built again, so that its hash is noted; docs/templates.md has the rules")
        .run(move |bench: Bench| async move {
            let Some(text) = text(&bench, kind)? else {
                // What a module needs has been looked for.
                return Ok(());
            };
            match Template::parse(kind, &text) {
                Err(error) if codes.contains(&error.code()) => {
                    Err(failed(format!("{}: {}", error.code(), crate::chain(&error))))
                }
                _ => Ok(()),
            }
        })
}

fn text(bench: &Bench, kind: TemplateKind) -> Result<Option<Vec<u8>>, Finding> {
    let files = bench.files()?;
    let file = match kind {
        TemplateKind::Access => files.access,
        TemplateKind::Offering => files.offering,
    };
    Ok(file.map(|file| std::fs::read(file.path)).transpose()?)
}

async fn offering_filled(bench: Bench) -> Result<(), Finding> {
    let checked = bench.checked(first_role(&bench)?)?;
    let Some(template) = &checked.offering else { return Ok(()) };
    let mut message = crate::core::draft(&bench);
    for (field, value) in [
        ("templateHash", template.hash()),
        ("nonce", "00000000-0000-4000-8000-000000000000"),
        ("product", "00000000-0000-4000-8000-000000000000"),
        ("agentPublicKey", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("exchange", "http://127.0.0.1:9"),
        ("signature", "A"),
    ] {
        message.insert(field.to_owned(), value.into());
    }
    template.validate(&Value::Object(message)).map_err(|violations| {
        let all: Vec<_> = violations.iter().map(ToString::to_string).collect();
        failed(all.join("; "))
    })
}

async fn password(bench: Bench) -> Result<(), Finding> {
    for role in bench.roles()? {
        let checked = bench.checked(role)?;
        let template = &checked.access;
        let message = json!({"username": "u", "password": "tell-nobody"});
        let lines = present::present(&message, template, false);
        ensure(!lines.iter().any(|line| line.value.contains("tell-nobody")), || {
            format!("the password is shown as it is, and not as {MASK}")
        })
        .map_err(|_| Finding::Warning(format!("the password is shown as it is, not as {MASK}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes that a template's text can be refused with, by the host's own page.
    #[test]
    fn every_code_of_templates_has_its_case() {
        let page = include_str!("../../../../docs/templates.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let codes: Vec<_> = rows.map(|(code, _)| code).filter(|code| !code.contains(' ')).collect();
        let cases = [JSON, SCHEMA, REFERENCES, FIELDS].concat();
        let known: Vec<_> = cases
            .into_iter()
            .map(Code::code)
            .chain([problem::Code::TemplateHashMismatch.code()])
            .collect();
        let listed: Vec<_> =
            codes.into_iter().filter(|code| code.chars().all(char::is_alphanumeric)).collect();
        assert!(listed.len() > 5, "{listed:?}");
        for code in listed.iter().filter(|code| code.starts_with(char::is_uppercase)) {
            assert!(known.contains(code), "{code} has no case");
        }
    }
}
