//! JUnit's form, which continuous integration reads.

use std::io::Write;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Summary, advice};
use crate::case::Verdict;
use crate::runner::Ran;

impl Summary<'_> {
    /// A suite a group. Warnings are passed, with what they say as output.
    pub(crate) fn junit(&self, file: impl Write) -> Result<(), quick_junit::SerializeError> {
        let mut report = Report::new(format!("privatix check {}", self.name));
        report.set_time(self.took);
        let mut groups: Vec<&str> = Vec::new();
        for one in self.ran {
            if !groups.contains(&one.case.group()) {
                groups.push(one.case.group());
            }
        }
        for group in groups {
            let mut suite = TestSuite::new(group);
            let of_group = self.ran.iter().filter(|one| one.case.group() == group);
            suite.add_test_cases(of_group.map(case));
            report.add_test_suite(suite);
        }
        report.serialize(file)
    }
}

fn case(one: &Ran) -> TestCase {
    let mut status = match &one.verdict {
        Verdict::Passed | Verdict::Warning(_) => TestCaseStatus::success(),
        Verdict::Skipped(_) => TestCaseStatus::skipped(),
        Verdict::Failed(_) => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Verdict::Crashed(_) | Verdict::TimedOut(_) => {
            TestCaseStatus::non_success(NonSuccessKind::Error)
        }
    };
    if let Some(why) = one.verdict.why().filter(|_| !one.verdict.is_pass()) {
        status.set_message(why);
    }
    if one.verdict.is_failure() {
        let case = &one.case;
        status.set_description(format!(
            "{}\n{}\nto mend: {}",
            case.sentence,
            case.rule,
            advice(one)
        ));
    }
    let mut case = TestCase::new(one.case.id, status);
    case.set_classname(one.case.group()).set_time(one.took);
    if let Verdict::Warning(why) = &one.verdict {
        case.set_system_out(why.as_str());
    } else if !one.printed.is_empty() {
        case.set_system_err(one.printed.as_str());
    }
    case
}
