use super::*;

fn description() -> ModuleDescription {
    samples::of_tasks(vec![samples::task("count", &["upto"], Schema::of::<u64>(), Schema::of::<u64>())])
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
}

#[test]
fn a_signature_cannot_drive_a_terminal() {
    let mut task = description().tasks.remove(0);
    task.name = "a\u{1b}[31m".into();
    task.params = vec!["\u{202e}b".into()];
    assert_eq!(task.signature(), "a\\u{1b}[31m(\\u{202e}b: u64) -> u64");
}
