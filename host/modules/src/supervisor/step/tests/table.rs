//! A story for each case that docs/modules.md and ARCHITECTURE.md promise: at this second this
//! happens, and then this is done.

use super::*;

/// A second, what happens in it, and what is done.
type Line = (u64, Event<Made>, &'static str);

/// Lives through the lines.
#[track_caller]
fn lives(begin: impl IntoIterator<Item = Line>, lines: impl IntoIterator<Item = Line>) {
    let mut life = new();
    for (number, (second, event, expected)) in begin.into_iter().chain(lines).enumerate() {
        let shown = format!("{event:?}");
        let (next, actions) = step(life, Duration::from_secs(second), event);
        life = next;
        assert_eq!(words(&actions, &life), expected, "line {}: {shown}", number + 1);
    }
}

/// A module that runs, from its first file on. Nothing happens to it before second 10.
fn a_runs() -> [Line; 5] {
    [
        (0, Event::Files(Files::Module(1)), "ask standing"),
        (0, free(), "examine"),
        (0, good(A), "claim 1 for A"),
        (1, ours(0), "starting A; bring up A"),
        (3, up(), "running A; no candidate; open A"),
    ]
}

/// The same, with a new version that has passed all checks.
fn then_arrives(new: Made) -> Vec<Line> {
    let claim = if new == C { "claim 2 for C" } else { "claim 1 for B" };
    let prove = if new == C { "prove C" } else { "prove B" };
    let lines = [
        (10, Event::Files(Files::Module(2)), "examine"),
        (10, good(new), claim),
        (10, ours(0), prove),
    ];
    a_runs().into_iter().chain(lines).collect()
}

/// The same, and the old one has made way.
fn then_made_way(new: Made) -> Vec<Line> {
    let starting = if new == C {
        "starting C; bring up C with 1 channel"
    } else {
        "starting B; bring up B with 1 channel"
    };
    let lines = [
        (11, Event::Proved(Ok(())), "ask what it serves"),
        (11, serves(), "stopping A; make way"),
        (12, Event::IsDown, starting),
    ];
    then_arrives(new).into_iter().chain(lines).collect()
}

#[test]
fn files_come_slowly_and_in_any_order() {
    lives([], a_runs());
    lives(
        [],
        [
            (0, Event::Files(Files::Templates), "incomplete LibraryMissing"),
            (5, Event::Files(Files::Module(1)), "ask standing"),
            (5, free(), "examine"),
            (5, bad(Code::BeingWritten), "incomplete BeingWritten; wait until 5.05s"),
            // A writer that is quiet for a while is one all the same.
            (6, Event::Woken, "examine"),
            (6, bad(Code::BeingWritten), "incomplete BeingWritten; wait until 6.05s"),
            (7, Event::Woken, "examine"),
            (7, bad(Code::TemplateMissing), "incomplete TemplateMissing"),
            (8, Event::Woken, ""),
            (9, Event::Files(Files::Module(2)), "examine"),
            (9, good(A), "claim 1 for A"),
        ],
    );
}

#[test]
fn what_is_gone_before_it_ran_is_forgotten() {
    lives(
        [],
        [
            (0, Event::Files(Files::Module(1)), "ask standing"),
            (0, free(), "examine"),
            (0, bad(Code::SealBroken), "refused SealBroken"),
            (1, Event::Files(Files::Templates), "incomplete LibraryMissing"),
            (2, Event::Files(Files::None), "forget"),
        ],
    );
}

#[test]
fn refused_package_is_left_alone_until_its_files_change() {
    lives(
        [],
        [
            (0, Event::Files(Files::Module(1)), "ask standing"),
            (0, free(), "examine"),
            (0, bad(Code::SealBroken), "refused SealBroken"),
            (500, Event::Woken, ""),
            (501, Event::Nudged, "ask standing"),
            (501, free(), ""),
            (502, Event::Files(Files::Module(2)), "examine"),
        ],
    );
}

#[test]
fn host_that_cannot_do_its_part_looks_again_by_itself() {
    let failed = || problem(Code::HostFailed);
    lives(
        [],
        [
            (0, Event::Files(Files::Module(1)), "ask standing"),
            (0, Event::Standing(Err(failed())), "failed HostFailed; wait until 5s"),
            (1, Event::Woken, "wait until 5s"),
            (5, Event::Woken, "ask standing"),
            (5, free(), "examine"),
            (5, bad(Code::HostFailed), "failed HostFailed; wait until 10s"),
            (10, Event::Woken, "examine"),
            (10, good(A), "claim 1 for A"),
            (10, Event::Claimed(Err(failed())), "release 1; failed HostFailed; wait until 15s"),
            (15, Event::Woken, "claim 1 for A"),
            (15, ours(0), "starting A; bring up A"),
        ],
    );
    // What is known of files that were judged stays to be seen.
    lives(
        [],
        [
            (0, Event::Files(Files::Module(1)), "ask standing"),
            (0, free(), "examine"),
            (0, bad(Code::SealBroken), "refused SealBroken"),
            (1, Event::Nudged, "ask standing"),
            (1, Event::Standing(Err(failed())), "wait until 6s"),
            (6, Event::Woken, "ask standing"),
            (6, free(), ""),
        ],
    );
}

#[test]
fn module_that_says_no_is_tried_again_later_and_later() {
    let no = || down(Code::CreateFailed, true);
    lives(
        a_runs().into_iter().take(4),
        [
            (1, no(), "release 1; failed CreateFailed A; wait until 6s"),
            // That its own product is free is no news.
            (1, Event::Nudged, "ask standing"),
            (1, free(), "wait until 6s"),
            (6, Event::Woken, "claim 1 for A"),
            (6, ours(0), "starting A; bring up A"),
            (6, no(), "release 1; failed CreateFailed A; wait until 16s"),
            (16, Event::Woken, "claim 1 for A"),
            (16, ours(0), "starting A; bring up A"),
            (16, no(), "release 1; failed CreateFailed A; wait until 36s"),
            // Other files are another matter.
            (20, Event::Files(Files::Module(2)), "examine"),
            (20, good(B), "claim 1 for B"),
            (20, ours(0), "starting B; bring up B"),
            (20, no(), "release 1; failed CreateFailed B; wait until 25s"),
            (25, Event::Woken, "claim 1 for B"),
            (25, ours(0), "starting B; bring up B"),
            (26, up(), "running B; no candidate; open B"),
        ],
    );
}

#[test]
fn module_that_broke_is_left_alone_until_its_files_change() {
    lives(
        a_runs().into_iter().take(4),
        [
            (1, down(Code::CreatePanicked, false), "release 1; failed CreatePanicked A"),
            (900, Event::Woken, ""),
            (901, Event::Files(Files::Module(2)), "examine"),
        ],
    );
}

#[test]
fn module_waits_for_a_product_that_another_one_has() {
    lives(
        a_runs().into_iter().take(3),
        [
            (1, taken(), "refused DuplicateProduct"),
            (2, Event::Woken, ""),
            (9, Event::Nudged, "ask standing"),
            (9, free(), "examine"),
            (9, good(A), "claim 1 for A"),
            (9, ours(0), "starting A; bring up A"),
        ],
    );
}

#[test]
fn product_is_transferred_to_another_module() {
    lives(
        a_runs(),
        [
            (10, Event::Nudged, "ask standing and owner of 1"),
            (10, lost(), "stopping A; take down"),
            (11, Event::IsDown, "release 1; no candidate; refused DuplicateProduct A"),
            (12, Event::Woken, ""),
            // Files that came with the transfer are looked at for themselves.
            (13, Event::Files(Files::Module(2)), "examine"),
            (13, good(C), "claim 2 for C"),
        ],
    );
}

#[test]
fn operator_switches_a_module_off_and_on() {
    lives(
        a_runs(),
        [
            (10, Event::Nudged, "ask standing and owner of 1"),
            (10, switched_off(), "stopping A; take down"),
            (11, Event::IsDown, "release 1; no candidate; refused Disabled A"),
            (12, Event::Nudged, "ask standing"),
            (12, switched_off(), "refused Disabled"),
            // Nothing is looked at meanwhile.
            (13, Event::Files(Files::Module(2)), ""),
            (14, Event::Nudged, "ask standing"),
            (14, free(), "examine"),
            (14, good(B), "claim 1 for B"),
        ],
    );
    // A module that was switched off before the host began.
    lives(
        [],
        [
            (0, Event::Files(Files::Module(1)), "ask standing"),
            (0, switched_off(), "refused Disabled"),
            (1, Event::Files(Files::None), "forget"),
            // It is another one now, perhaps, and the operator is asked anew.
            (2, Event::Files(Files::Module(2)), "ask standing"),
        ],
    );
}

#[test]
fn library_that_is_set_aside_waits_until_it_is_released() {
    lives(
        a_runs().into_iter().take(3),
        [
            // Nothing was taken, so nothing is given back, which would have everybody look again.
            (1, set_aside(), "refused Quarantined A"),
            (900, Event::Woken, ""),
            (901, Event::Nudged, "ask standing"),
            (901, free(), "examine"),
            (901, good(A), "claim 1 for A"),
            (901, ours(0), "starting A; bring up A"),
            // Set aside while it was coming up, by another run's judgement.
            (901, down(Code::Quarantined, false), "release 1; failed Quarantined A"),
            (902, Event::Nudged, "ask standing"),
            (902, free(), "examine"),
        ],
    );
    // Beside one that runs.
    lives(
        then_arrives(B),
        [
            (
                11,
                Event::Proved(Err(not_up(Code::Quarantined, false))),
                "candidate failed Quarantined B",
            ),
            (12, Event::Nudged, "ask standing and owner of 1"),
            (12, free(), "examine"),
        ],
    );
}

#[test]
fn library_over_which_the_host_died_twice_lets_the_others_go_first() {
    lives(
        a_runs().into_iter().take(3),
        [
            (0, ours(3), "release 1; failed Suspected; wait until 10s"),
            (10, Event::Woken, "claim 1 for A"),
            (10, ours(3), "starting A; bring up A"),
        ],
    );
    // Once is forgiven.
    lives(a_runs().into_iter().take(3), [(0, ours(1), "starting A; bring up A")]);
    // What runs keeps its product.
    lives(
        then_arrives(B).into_iter().take(7),
        [(10, ours(2), "candidate failed Suspected; wait until 15s")],
    );
    lives(
        then_arrives(C).into_iter().take(7),
        [(10, ours(2), "release 2; candidate failed Suspected; wait until 15s")],
    );
}

#[test]
fn new_version_takes_over() {
    lives(then_made_way(B), [(13, up(), "running B; no candidate; open B")]);
    lives(then_made_way(C), [(13, up(), "release 1; running C; no candidate; open C")]);
}

#[test]
fn while_new_files_do_not_fit_together_the_old_version_goes_on() {
    lives(
        a_runs(),
        [
            (10, Event::Files(Files::Module(2)), "examine"),
            (10, bad(Code::BeingWritten), "candidate incomplete BeingWritten; wait until 10.05s"),
            (11, Event::Woken, "examine"),
            (11, bad(Code::TemplateHashMismatch), "candidate refused TemplateHashMismatch"),
            (12, Event::Files(Files::Module(3)), "examine"),
            (12, bad(Code::TemplateMissing), "candidate incomplete TemplateMissing"),
            (13, Event::Files(Files::Module(4)), "examine"),
            (13, bad(Code::HostFailed), "candidate failed HostFailed; wait until 18s"),
            (18, Event::Woken, "examine"),
            (18, good(B), "claim 1 for B"),
            (18, taken(), "candidate refused DuplicateProduct"),
            // The old files are back.
            (19, Event::Files(Files::Module(5)), "examine"),
            (19, good(A), "no candidate"),
        ],
    );
}

#[test]
fn version_that_cannot_be_proven_costs_the_running_one_nothing() {
    lives(
        then_arrives(B),
        [(
            11,
            Event::Proved(Err(not_up(Code::LoadCrashed, false))),
            "candidate failed LoadCrashed B",
        )],
    );
    lives(
        then_arrives(C),
        [
            (
                11,
                Event::Proved(Err(not_up(Code::LoadTimedOut, true))),
                "release 2; candidate failed LoadTimedOut C; wait until 16s",
            ),
            (16, Event::Woken, "claim 2 for C"),
            (16, ours(0), "prove C"),
            (
                17,
                Event::Proved(Err(not_up(Code::LoadTimedOut, true))),
                "release 2; candidate failed LoadTimedOut C; wait until 27s",
            ),
        ],
    );
}

#[test]
fn nothing_is_replaced_as_long_as_it_is_unknown_what_the_old_version_serves() {
    lives(
        then_arrives(B),
        [
            (11, Event::Proved(Ok(())), "ask what it serves"),
            (
                11,
                Event::Served(Err(problem(Code::HostFailed))),
                "candidate failed HostFailed B; wait until 16s",
            ),
            (16, Event::Woken, "claim 1 for B"),
            (16, ours(0), "prove B"),
            (16, Event::Proved(Ok(())), "ask what it serves"),
            (16, serves(), "stopping A; make way"),
            (17, Event::IsDown, "starting B; bring up B with 1 channel"),
        ],
    );
}

#[test]
fn version_that_does_not_come_up_is_rolled_back() {
    for retry in [false, true] {
        lives(
            then_made_way(B),
            [
                (
                    13,
                    down(Code::StartFailed, retry),
                    "complain StartFailed; starting A; bring up A",
                ),
                (14, up(), "running A; no candidate; open A; candidate failed StartFailed B"),
                (99, Event::Woken, ""),
                (100, Event::Files(Files::Module(3)), "examine"),
            ],
        );
    }
    lives(
        then_made_way(C),
        [
            (
                13,
                down(Code::CreatePanicked, false),
                "complain CreatePanicked; release 2; starting A; bring up A",
            ),
            (14, up(), "running A; no candidate; open A; candidate failed CreatePanicked C"),
        ],
    );
}

#[test]
fn old_version_that_does_not_come_back_is_tried_again_whatever_it_died_of() {
    lives(
        then_made_way(B),
        [
            (13, down(Code::StartFailed, false), "complain StartFailed; starting A; bring up A"),
            (
                14,
                down(Code::CreatePanicked, false),
                "release 1; failed CreatePanicked A; candidate failed StartFailed B; wait until 19s",
            ),
            (19, Event::Woken, "claim 1 for A"),
            (19, ours(0), "starting A; bring up A"),
            (20, up(), "running A; no candidate; open A"),
        ],
    );
}

#[test]
fn offering_template_that_comes_later_is_registered_and_the_module_goes_on() {
    let failed = || Event::Registered(Err(not_up(Code::HostFailed, true)));
    lives(
        a_runs(),
        [
            (10, Event::Files(Files::Module(2)), "examine"),
            (10, good(A_SELLS), "register A"),
            (10, failed(), "candidate failed HostFailed; wait until 15s"),
            (15, Event::Woken, "examine"),
            (15, good(A_SELLS), "register A"),
            (15, Event::Registered(Ok(())), "no candidate"),
            // It is registered once.
            (20, Event::Files(Files::Module(3)), "examine"),
            (20, good(A_SELLS), "no candidate"),
        ],
    );
}

#[test]
fn library_that_is_gone_counts_as_removed_after_the_grace() {
    let gone = |files| {
        [
            (10, Event::Files(files), "wait until 12s"),
            (11, Event::Woken, "wait until 12s"),
            (12, Event::Woken, "stopping A; take down"),
            (13, Event::IsDown, "release 1; no candidate; removed A"),
            (14, Event::Woken, ""),
        ]
    };
    lives(a_runs(), gone(Files::Templates));
    lives(
        a_runs(),
        gone(Files::None).into_iter().chain([
            (15, Event::Files(Files::Module(2)), "ask standing"),
            (15, free(), "examine"),
            (15, bad(Code::SealBroken), "refused SealBroken"),
            // It was in this process, and what it left there stays to be seen.
            (16, Event::Files(Files::None), "removed"),
        ]),
    );
    // For a moment, as when it is replaced.
    lives(
        a_runs(),
        [
            (10, Event::Files(Files::Templates), "wait until 12s"),
            (11, Event::Files(Files::Module(2)), "ask standing and owner of 1"),
            (11, free(), "examine"),
            (11, good(A), "no candidate"),
            (20, Event::Files(Files::Templates), "wait until 22s"),
        ],
    );
}

#[test]
fn what_waits_for_another_try_is_removed_without_one() {
    lives(
        a_runs().into_iter().take(4),
        [
            (1, down(Code::CreateFailed, true), "release 1; failed CreateFailed A; wait until 6s"),
            (2, Event::Files(Files::None), "removed"),
            (6, Event::Woken, ""),
        ],
    );
}

#[test]
fn host_goes_down_in_each_state() {
    let idle: [Vec<Line>; 4] = [
        vec![],
        vec![(0, Event::Files(Files::Templates), "incomplete LibraryMissing")],
        a_runs().into_iter().take(3).chain([(1, taken(), "refused DuplicateProduct")]).collect(),
        a_runs()
            .into_iter()
            .take(4)
            .chain([(
                1,
                down(Code::CreateFailed, true),
                "release 1; failed CreateFailed A; wait until 6s",
            )])
            .collect(),
    ];
    for begin in idle {
        lives(begin, [(20, Event::Down, "")]);
    }
    let ends = (20, Event::Down, "stopping A; take down");
    lives(a_runs(), [ends.clone(), (21, Event::IsDown, "release 1; no candidate")]);
    let gone = (10, Event::Files(Files::None), "wait until 12s");
    lives(a_runs().into_iter().chain([gone]), [ends]);
    // What is under way is finished, and what would have come after it is not begun.
    let busy = |begin: Vec<Line>, answer, expected| {
        lives(begin, [(20, Event::Down, ""), (21, answer, expected)]);
    };
    let first = |count| a_runs().into_iter().take(count).collect::<Vec<_>>();
    let second = |count| then_arrives(C).into_iter().take(count).collect::<Vec<_>>();
    busy(first(1), free(), "");
    busy(first(2), good(A), "");
    busy(first(3), ours(0), "release 1");
    busy(first(4), up(), "running A; no candidate; open A; stopping A; take down");
    busy(first(4), down(Code::CreateFailed, true), "release 1; failed CreateFailed A");
    busy(second(6), good(C), "stopping A; take down");
    busy(second(7), ours(0), "release 2; stopping A; take down");
    busy(second(8), Event::Proved(Ok(())), "release 2; stopping A; take down");
    let third = |count| then_made_way(C).into_iter().take(count).collect::<Vec<_>>();
    busy(third(9), serves(), "release 2; stopping A; take down");
    busy(third(10), Event::IsDown, "release 1; release 2");
    busy(third(11), up(), "release 1; running C; no candidate; open C; stopping C; take down");
    let not_up = "complain StartFailed; release 2; release 1";
    busy(third(11), down(Code::StartFailed, true), not_up);
    let back = (
        13,
        down(Code::StartFailed, true),
        "complain StartFailed; release 2; starting A; bring up A",
    );
    busy(
        third(11).into_iter().chain([back]).collect(),
        up(),
        "running A; no candidate; open A; candidate failed StartFailed C; stopping A; take down",
    );
}

#[test]
fn answer_to_what_was_not_asked_is_without_effect() {
    let answers = || [free(), good(B), ours(0), serves(), up(), Event::IsDown];
    for answer in answers() {
        lives(a_runs(), [(10, answer, "")]);
    }
    for answer in answers().into_iter().filter(|answer| !matches!(answer, Event::BroughtUp { .. }))
    {
        lives(then_made_way(B), [(13, answer, ""), (14, up(), "running B; no candidate; open B")]);
    }
}
