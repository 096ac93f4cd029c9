//! Panics inside a world. tokio ends the task that panics and goes on; a run
//! must not.

use std::{cell::RefCell, panic, sync::Once, thread::LocalKey};

thread_local! {
    /// The first panic in this thread, once it is watched.
    static FIRST: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Notes panics of this thread from now on.
pub fn watch() {
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            note(&FIRST, &info.to_string());
            usual(info);
        }));
    });
    FIRST.set(Some(None));
}

/// The first panic of this thread since [`watch`].
pub fn first() -> Option<String> {
    FIRST.with_borrow(|first| first.clone().flatten())
}

fn note(first: &'static LocalKey<RefCell<Option<Option<String>>>>, words: &str) {
    first.with_borrow_mut(|first| {
        if let Some(first) = first {
            first.get_or_insert_with(|| words.to_owned());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_task_is_noted_where_it_is_watched() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            watch();
            assert_eq!(first(), None);
            let ended = tokio::spawn(async { panic!("what is wrong") }).await;
            assert!(ended.is_err());
            assert!(first().unwrap().contains("what is wrong"));
        });
    }
}
