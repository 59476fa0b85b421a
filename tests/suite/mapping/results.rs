//! A map yields its results in order or as they come, and each error stands at its own place.

use super::*;

#[test]
fn chunks_of_any_size_give_what_a_sequential_map_gives() {
    let pool = pool(2);
    let act = act(&pool);
    let expected: Vec<_> = (0..500).map(numbered).collect();
    for size in [1, 3, 40, 1000] {
        let map = || pool.map(&act, expected.clone()).chunk_size(items(size)).buffer_size(items(200));
        let ordered: Vec<_> = map().map(|result| result.expect("succeeds")).collect();
        assert_eq!(ordered, expected, "chunks of {size}");
        let mut unordered = BTreeMap::new();
        for (number, result) in map().unordered() {
            let earlier = unordered.insert(number, result.expect("succeeds"));
            assert_eq!(earlier, None, "each number once");
        }
        assert!(unordered.into_iter().eq(expected.iter().cloned().enumerate()), "chunks of {size}");
    }
    assert_eq!(pool.map(&act, [""; 0]).count() + pool.map(&act, [""; 0]).unordered().count(), 0);
    assert_eq!((pool.stats().submitted, pool.stats().retries), (4_000, 0));
}

#[test]
fn an_unordered_map_goes_on_where_an_ordered_one_was_left() {
    let pool = pool(2);
    let act = act(&pool);
    let mut ordered = pool.map(&act, (0..100).map(numbered));
    let mut seen: Vec<_> = ordered.by_ref().take(10).map(|result| result.expect("succeeds")).collect();
    seen.extend(ordered.unordered().map(|(_, result)| result.expect("succeeds")));
    seen.sort();
    let mut expected: Vec<_> = (0..100).map(numbered).collect();
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn an_error_stands_at_its_own_position_inside_of_a_chunk_and_the_rest_goes_on() {
    let pool = pool(2);
    let act = act(&pool);
    let input = |number: usize| match number % 10 {
        3 => Bytes::from_static(b"trap"),
        7 => Bytes::from_static(b"refuse"),
        _ => numbered(number),
    };
    let check = |number: usize, result: Result<Bytes, MapError>| match (number % 10, result) {
        (3, Err(MapError::Task(failure))) => {
            assert!(matches!(failure.error(), TaskError::Trap { .. }), "{failure}")
        }
        (7, Err(MapError::Task(failure))) => {
            assert_eq!(
                failure.error(),
                &TaskError::Guest { message: "refuse".into(), chain: Vec::new(), data: None }
            );
        }
        (3 | 7, other) => panic!("{number}: {other:?}"),
        (_, result) => assert_eq!(result.expect("succeeds"), numbered(number)),
    };
    let map = || pool.map(&act, (0..200).map(input)).chunk_size(items(40));
    assert_eq!(map().enumerate().map(|(number, result)| check(number, result)).count(), 200);
    assert_eq!(map().unordered().map(|(number, result)| check(number, result)).count(), 200);
}

#[test]
fn options_go_to_each_task_and_a_tasks_timeout_is_not_the_maps() {
    let pool = build(builder(2).grace(PATIENCE));
    let act = act(&pool);
    let options = TaskOptions::new().label("batch 7").timeout(Duration::from_secs(1));
    let mut map = pool.map(&act, texts(&["e", "s", "e"])).options(options).timeout(PATIENCE);
    assert_eq!(map.next().expect("a result").expect("succeeds"), "e");
    match map.next().expect("a result").expect_err("it never ends") {
        MapError::Task(failure) => {
            assert_eq!(failure.label(), Some("batch 7"));
            assert_eq!(failure.error(), &TaskError::Timeout { limit: Duration::from_secs(1), killed: false });
        }
        other => panic!("{other}"),
    }
    assert_eq!(map.next().expect("a result").expect("succeeds"), "e");
    assert!(map.next().is_none());
}
