//! The pool under nesting, many callers and panics.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn every_part_runs_once() {
    for threads in [1, 2, 3, 8] {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads);
        for parts in [0, 1, 2, 7, 64, 1000] {
            let counts: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..20 {
                pool.run(parts, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 20), "{threads} threads, {parts} parts");
        }
    }
}

#[test]
fn works_after_sleep_nested_and_from_many_callers() {
    let pool = Pool::new(4);
    let total = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for pause in [0, 0, 2, 0] {
                    std::thread::sleep(std::time::Duration::from_millis(pause));
                    pool.run(10, &|_| {
                        pool.run(5, &|_| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    });
                }
            });
        }
    });
    assert_eq!(total.load(Ordering::Relaxed), 3 * 4 * 10 * 5);
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    let pool = Pool::new(3);
    for bad in 0..6 {
        let ran = AtomicUsize::new(0);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(6, &|i| {
                ran.fetch_add(1, Ordering::Relaxed);
                assert!(i != bad, "part {i} fails on purpose");
            });
        }));
        assert!(result.is_err());
        assert_eq!(ran.load(Ordering::Relaxed), 6);
    }
    let mut out = vec![0; 100];
    pool.chunks_mut(&mut out, 7, |i, chunk| chunk.fill(i));
    assert!(out.iter().enumerate().all(|(i, v)| *v == i / 7));
}

#[test]
fn columns_cover_the_matrix() {
    let pool = Pool::new(3);
    for (rows, cols, parts, step) in [(1, 1, 4, 1), (3, 10, 4, 1), (5, 33, 7, 16), (2, 64, 3, 16)] {
        let mut out = vec![0_usize; rows * cols];
        pool.columns(&mut out, cols, parts, step, |range, mut view| {
            assert!(range.start % step == 0);
            for r in 0..view.rows() {
                for (c, v) in range.clone().zip(view.row_mut(r)) {
                    *v += r * cols + c + 1;
                }
            }
        });
        assert!(out.iter().enumerate().all(|(i, v)| *v == i + 1));
    }
}
