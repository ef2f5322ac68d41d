//! Named lists of networks in a change.

use super::super::line::LONGEST_LINE;
use super::super::lists::{NamedList, NetworkList};
use super::super::sets::Standing;
use super::{Change, RuleError, check_name};
use crate::shown::is_obeyed;
use std::sync::Arc;

/// Most named lists of networks: each is looked into for every connection.
pub(in super::super) const MOST_LISTS: usize = 16;

impl Change {
    /// Makes the list `name` consist of the networks of `list`, whatever it was before. Each is as a
    /// [`Rule::block`](crate::Rule::block) of that network, or as a
    /// [`Rule::allow`](crate::Rule::allow).
    ///
    /// In a file of rules a list that was read from a file is that file's path, and any other is all
    /// its networks.
    ///
    /// # Errors
    ///
    /// [`RuleError`]; the list is then as it was. A list of networks is not of
    /// [`Standing::Member`].
    pub fn list(&mut self, name: &str, standing: Standing, list: NetworkList) -> Result<(), RuleError> {
        check_name(name)?;
        if standing == Standing::Member {
            return Err(RuleError::Members);
        }
        if !self.next.lists.contains_key(name) && self.next.lists.len() >= MOST_LISTS {
            return Err(RuleError::TooMany {
                what: "lists of networks",
                at_most: MOST_LISTS,
            });
        }
        let named = NamedList {
            name: name.to_owned(),
            standing,
            list,
        };
        can_be_written(&named)?;
        Arc::make_mut(&mut self.next.lists).insert(name.to_owned(), Arc::new(named));
        // An allow list may have held what the new one does not.
        self.tightened = true;
        Ok(())
    }

    pub(in super::super) fn named_list(&self, name: &str) -> Option<&NamedList> {
        self.next.lists.get(name).map(|named| &**named)
    }

    /// Drops the list `name`. What is not there is no error.
    pub fn remove_list(&mut self, name: &str) {
        if let Some(list) = Arc::make_mut(&mut self.next.lists).remove(name) {
            self.tightened |= list.standing == Standing::Allowed;
        }
    }
}

/// Whether a file of rules could be read that has the list in it.
fn can_be_written(named: &NamedList) -> Result<(), RuleError> {
    let Some(source) = named.list.source() else {
        return Ok(());
    };
    let absolute = source.path.to_str();
    for path in [Some(source.written.as_str()), absolute] {
        let is_value = |path: &&str| {
            let one_line = !path.is_empty() && path.trim() == *path && !path.contains(is_obeyed);
            one_line && !path.split_whitespace().any(|word| word.starts_with('#'))
        };
        if path.filter(is_value).is_none() {
            return Err(RuleError::Path(source.path.clone()));
        }
    }
    // Whichever of the two is written.
    let bytes = named.to_string().len() + source.path.as_os_str().len();
    match bytes > LONGEST_LINE {
        true => Err(RuleError::TooLong(bytes)),
        false => Ok(()),
    }
}
