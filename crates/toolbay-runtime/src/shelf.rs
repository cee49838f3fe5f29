//! Plugins that failed, remembered for those who ask how plugins fare. Whoever may load plugins chooses their names, so
//! each scope has a place of its own on the shelf, and one that fails much pushes out its own first.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use toolbay_api::{PluginName, Scope};

use crate::lifecycle::Lifecycle;

/// Failed plugins that are remembered of one scope, and of all together.
const MAX_OF_SCOPE: usize = 100;
const MAX_OF_ALL: usize = 10_000;

/// Failed plugins by scope, of each the oldest first.
#[derive(Default)]
pub(crate) struct Shelf {
    failed: HashMap<Scope, VecDeque<Arc<Lifecycle>>>,
    count: usize,
}

impl Shelf {
    /// Remembers a plugin that failed, in the place of an earlier one of its name.
    pub(crate) fn put(&mut self, life: Arc<Lifecycle>) {
        let scope = life.scope().clone();
        self.take(&scope, life.name());
        if self.of(&scope).count() >= MAX_OF_SCOPE {
            self.forget_one_of(&scope);
        }
        if self.count >= MAX_OF_ALL {
            // Of who has the most, so that no number of failures of one makes another's unknown.
            let largest = self.failed.iter().max_by_key(|(_, failed)| failed.len()).map(|(scope, _)| scope.clone());
            largest.iter().for_each(|scope| self.forget_one_of(scope));
        }
        self.failed.entry(scope).or_default().push_back(life);
        self.count += 1;
    }

    /// Takes out the failure of a plugin.
    pub(crate) fn take(&mut self, scope: &Scope, name: &PluginName) -> Option<Arc<Lifecycle>> {
        let failed = self.failed.get_mut(scope)?;
        let at = failed.iter().position(|life| life.name() == name)?;
        let taken = failed.remove(at);
        self.count -= 1;
        self.tidy(scope);
        taken
    }

    /// The failed plugins of a scope.
    pub(crate) fn of(&self, scope: &Scope) -> impl Iterator<Item = &Arc<Lifecycle>> {
        self.failed.get(scope).into_iter().flatten()
    }

    fn forget_one_of(&mut self, scope: &Scope) {
        if self.failed.get_mut(scope).and_then(VecDeque::pop_front).is_some() {
            self.count -= 1;
            self.tidy(scope);
        }
    }

    fn tidy(&mut self, scope: &Scope) {
        if self.failed.get(scope).is_some_and(VecDeque::is_empty) {
            self.failed.remove(scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use semver::Version;

    use super::*;
    use crate::events::announce::Announcer;

    fn life(scope: &Scope, name: &str) -> Arc<Lifecycle> {
        let (name, version) = (PluginName::new(name).unwrap(), Version::new(1, 0, 0));
        Arc::new(Lifecycle::new(name, version, scope.clone(), Arc::default(), Announcer::default()))
    }

    #[test]
    fn a_full_shelf_forgets_of_who_has_the_most() {
        let tenant = |number: usize| Scope::tenant(format!("tenant-{number}")).unwrap();
        let mut shelf = Shelf::default();
        for number in 0..MAX_OF_ALL / MAX_OF_SCOPE {
            for plugin in 0..MAX_OF_SCOPE {
                shelf.put(life(&tenant(number), &format!("p{plugin}")));
            }
        }
        assert_eq!(shelf.count, MAX_OF_ALL);
        for number in 1_000..1_050 {
            shelf.put(life(&tenant(number), "only"));
        }
        assert_eq!(shelf.count, MAX_OF_ALL);
        assert!((1_000..1_050).all(|number| shelf.of(&tenant(number)).count() == 1));
        assert!(shelf.take(&tenant(1_000), &PluginName::new("only").unwrap()).is_some());
        assert_eq!((shelf.count, shelf.failed.contains_key(&tenant(1_000))), (MAX_OF_ALL - 1, false));
    }
}
