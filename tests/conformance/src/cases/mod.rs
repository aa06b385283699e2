//! The catalogue: a file a group, in the order in which one builds on another.

mod abi;
mod agent;
mod client;
mod commands;
mod credit;
mod host;
mod leaks;
mod lifecycle;
mod package;
mod secrets;
mod status;
mod templates;
mod together;
mod trouble;
mod usage;

use crate::case::Case;

/// Every case of the kit. None needs one that stands after it.
pub fn all() -> Vec<Case> {
    let of_files = [package::cases(), templates::cases()].concat();
    [
        of_files.into_iter().map(Case::of_files).collect(),
        abi::cases(),
        lifecycle::cases(),
        together::cases(),
        agent::cases(),
        client::cases(),
        commands::cases(),
        status::cases(),
        usage::cases(),
        credit::cases(),
        trouble::cases(),
        secrets::cases(),
        leaks::cases(),
        host::cases(),
    ]
    .concat()
}

/// What cases have done in processes of their own; none of it can be asked for.
pub(crate) fn parts() -> Vec<Case> {
    vec![lifecycle::served()]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::path::Path;

    use super::all;
    use crate::case::Set;

    #[test]
    fn ids_are_unique_and_none_needs_what_comes_later() {
        let mut known = HashSet::new();
        for case in all() {
            assert!(case.id.contains('.') && !case.id.contains(char::is_whitespace), "{case:?}");
            for id in &case.after {
                assert!(known.contains(id), "{case:?} needs {id}, which does not come before it");
            }
            assert!(known.insert(case.id), "{case:?} is there twice");
        }
        let required = all().into_iter().filter(|case| case.set == Set::Required);
        assert!(required.count() >= 60, "{} cases", known.len());
    }

    #[test]
    fn nothing_required_needs_what_is_not() {
        let all = all();
        for case in all.iter().filter(|case| case.set == Set::Required) {
            for id in &case.after {
                let needed = all.iter().find(|other| other.id == *id);
                assert!(needed.is_some_and(|other| other.set == Set::Required), "{case:?}: {id}");
            }
        }
    }

    #[test]
    fn every_case_says_what_has_to_be_so_where_it_is_ruled_and_how_to_mend_it() {
        for case in all() {
            assert!(case.sentence.ends_with('.'), "{case:?}: {}", case.sentence);
            assert!(!case.mend.is_empty(), "{case:?}");
            let (place, rule) = case.rule.split_once(": ").expect("a page and a rule");
            let (page, heading) = place.split_once('#').unwrap_or((place, ""));
            assert!(!rule.is_empty(), "{case:?}");
            let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
            let text = fs::read_to_string(&page).expect("a page of this repository");
            assert!(heading.is_empty() || has_heading(&text, heading), "{case:?}: {place}");
        }
    }

    /// Whether a heading of a page has this anchor.
    fn has_heading(page: &str, anchor: &str) -> bool {
        let headings = page.lines().filter(|line| line.starts_with('#'));
        let anchors = headings.map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            words
                .replace(|c: char| !c.is_alphanumeric() && c != ' ' && c != '-', "")
                .replace(' ', "-")
        });
        anchors.into_iter().any(|known| known == anchor)
    }
}
