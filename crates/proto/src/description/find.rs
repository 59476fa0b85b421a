//! Finds a task by the name that a person types.

use super::TaskDescription;

/// Returns the index of the task of this name.
///
/// A component's function may be named without the version of its interface, or by its own name alone, where that says
/// which one is meant: `demo:text/words@1.0.0#count`, `demo:text/words#count`, `count`.
pub fn find_task(tasks: &[TaskDescription], name: &str) -> Option<usize> {
    let only = |is_meant: &dyn Fn(&str) -> bool| {
        let mut found = tasks.iter().enumerate().filter(|(_, task)| is_meant(&task.name));
        match (found.next(), found.next()) {
            (Some((index, _)), None) => Some(index),
            _ => None,
        }
    };
    let exact = tasks.iter().position(|task| task.name == name);
    exact
        .or_else(|| {
            only(&|full| {
                split(full).is_some_and(|(interface, function)| {
                    let unversioned =
                        interface.split_once('@').map_or(interface, |(unversioned, _)| unversioned);
                    split(name) == Some((unversioned, function))
                })
            })
        })
        .or_else(|| only(&|full| split(full).is_some_and(|(_, function)| function == name)))
}

/// Splits a function's name into that of its interface and its own.
fn split(name: &str) -> Option<(&str, &str)> {
    name.split_once('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_an_interface_is_found_by_each_name_that_says_which_one_is_meant() {
        let names =
            ["a:b/c@1.0.0#count", "a:b/c@2.0.0#count", "a:b/c@1.0.0#mean", "count-all", "x:y/z#count-all"];
        let tasks = names.map(TaskDescription::raw);
        let find = |name| find_task(&tasks, name);
        assert_eq!(find("a:b/c@2.0.0#count"), Some(1));
        assert_eq!((find("a:b/c#mean"), find("mean")), (Some(2), Some(2)));
        assert_eq!((find("a:b/c#count"), find("count")), (None, None), "two versions have it");
        assert_eq!((find("count-all"), find("x:y/z#count-all")), (Some(3), Some(4)));
        assert_eq!((find("#mean"), find(""), find("a:b/c"), find("no")), (None, None, None, None));
    }
}
