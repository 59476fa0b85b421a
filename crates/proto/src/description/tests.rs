use super::*;
use crate::limits;

fn description() -> ModuleDescription {
    samples::of_tasks(vec![samples::task(
        "count",
        &["upto"],
        TypeSchema::of::<u64>(),
        TypeSchema::of::<u64>(),
    )])
}

#[test]
fn a_description_is_held_to_every_bound_of_its_tasks() {
    assert!(description().is_well_formed());
    let long = |len| "x".repeat(len);
    let breaks: [fn(&mut TaskDescription, String); 3] = [
        |task, text| task.name = text,
        |task, text| task.export = text,
        |task, text| task.params = vec![text],
    ];
    for break_it in breaks {
        let mut description = description();
        break_it(&mut description.tasks[0], long(limits::TASK_NAME_BYTES_MAX));
        assert!(description.is_well_formed());
        break_it(&mut description.tasks[0], long(limits::TASK_NAME_BYTES_MAX + 1));
        assert!(!description.is_well_formed());
    }
    let mut documented = description();
    documented.tasks[0].doc = long(limits::TASK_DOC_BYTES_MAX + 1);
    assert!(!documented.is_well_formed());
    let mut many = description();
    many.tasks = vec![many.tasks[0].clone(); limits::TASKS_PER_MODULE_MAX + 1];
    assert!(!many.is_well_formed());
    let mut twice = description();
    twice.tasks = vec![twice.tasks[0].clone(); 2];
    assert!(!twice.is_well_formed(), "of two tasks one could not be called");
    twice.tasks[1].name = "other".into();
    assert!(twice.is_well_formed());
}

#[test]
fn the_arguments_of_a_task_are_named_apart_and_fit_its_input() {
    let check = |codec, params: &[&str], input: TypeSchema| {
        let params = params.iter().map(ToString::to_string).collect();
        TaskDescription { codec, params, input, ..description().tasks.remove(0) }.check()
    };
    let postcard = |params: &[&str], input| check(Codec::Postcard, params, input);
    assert_eq!(postcard(&[], TypeSchema::of::<()>()), Ok(()));
    assert_eq!(postcard(&["a"], TypeSchema::of::<(u8, u8)>()), Ok(()));
    assert_eq!(postcard(&["a", "b"], TypeSchema::of::<(u8, u8)>()), Ok(()));
    assert_eq!(check(Codec::Raw, &[], TypeSchema::raw_bytes()), Ok(()));
    assert_eq!(check(Codec::Raw, &["input"], TypeSchema::raw_bytes()), Ok(()));
    for (params, input) in [
        (&[][..], TypeSchema::of::<u8>()),
        (&["a", "b"], TypeSchema::of::<u8>()),
        (&["a", "b"], TypeSchema::of::<(u8, u8, u8)>()),
        (&["a", "b", "c"], TypeSchema::of::<(u8, u8)>()),
    ] {
        assert!(matches!(postcard(params, input), Err(TaskDefect::ArgumentCount { .. })), "{params:?}");
    }
    assert!(matches!(
        check(Codec::Raw, &["a", "b"], TypeSchema::raw_bytes()),
        Err(TaskDefect::ArgumentCount { .. })
    ));
    for params in [["a", "a"], ["a", ""], ["\u{2800}", "b"]] {
        let refused = postcard(&params, TypeSchema::of::<(u8, u8)>());
        assert!(matches!(refused, Err(TaskDefect::Arguments(_))), "{params:?}");
    }
    for name in ["", "\u{a0}\u{3000}"] {
        let blank = TaskDescription { name: name.into(), ..description().tasks.remove(0) };
        assert_eq!(blank.check(), Err(TaskDefect::Blank), "{name:?}");
    }
}

#[test]
fn a_signature_cannot_drive_a_terminal() {
    let mut task = description().tasks.remove(0);
    task.name = "a\u{1b}[31m".into();
    task.params = vec!["\u{202e}b".into()];
    assert_eq!(task.signature(), "a\\u{1b}[31m(\\u{202e}b: u64) -> u64");
}
