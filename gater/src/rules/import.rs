//! Lists of networks out of files.

use super::Rules;
use super::file::{FileError, read_list};
use super::lists::{ListFormat, NamedList, NetworkList, Source, absolute};
use super::sets::Standing;
use std::path::Path;

impl NetworkList {
    /// The list in the file at `path`, as [`Self::read`] reads it. The list knows its file: in a file
    /// of rules it is an `import` of it, and [`Rules::reload_lists`] reads it again.
    ///
    /// # Errors
    ///
    /// [`FileError::Io`] and [`FileError::List`], which name the file, and the line.
    pub fn from_file(path: impl AsRef<Path>, format: impl Into<Option<ListFormat>>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let from = absolute(path);
        read_list(
            path,
            Source {
                written: from.to_string_lossy().into_owned(),
                path: from,
                format: format.into(),
                print: None,
            },
        )
    }
}

impl Rules {
    /// Makes the list `name` consist of the networks in the file at `path`: in one step, whatever it
    /// was before. With `None` the format is told from the content. How many networks it has now.
    ///
    /// Blocks for as long as it takes to read the file, a second for some million lines. Decisions
    /// and other changes do not wait for that.
    ///
    /// # Errors
    ///
    /// As [`NetworkList::from_file`], and [`FileError::Rules`] for what [`Change::list`] refuses. The
    /// list is then as it was.
    ///
    /// [`Change::list`]: crate::Change::list
    pub fn import(
        &self,
        name: &str,
        standing: Standing,
        path: impl AsRef<Path>,
        format: impl Into<Option<ListFormat>>,
    ) -> Result<usize, FileError> {
        let path = path.as_ref();
        let list = NetworkList::from_file(path, format)?;
        self.put(name, standing, list, path, |_| true)
    }

    /// Reads the files of all lists again, as after a download: each list that has changed is
    /// replaced as a whole. For each list that is a file: its name, and how many networks it has now,
    /// or why it stays as it was. One that cannot be read keeps no other from being replaced.
    ///
    /// The rules themselves stay as they are; [`Self::reload`] reads them and the lists. Blocks as
    /// [`Self::import`].
    ///
    /// # Errors
    ///
    /// For each list those of [`Self::import`].
    pub fn reload_lists(&self) -> Vec<(String, Result<usize, FileError>)> {
        let lists = self.0.current.load().lists.clone();
        let sources = lists.values().filter_map(|named| Some((named, named.list.source()?)));
        let reloaded = sources.map(|(named, source)| {
            let read = read_list(&source.path, source.clone());
            let replaced = read.and_then(|list| match list.source() == Some(source) {
                // Nobody is judged again for a list that says the same.
                true => Ok(named.list.len()),
                // Unless it has been replaced or dropped meanwhile.
                false => self.put(&named.name, named.standing, list, &source.path, |now| {
                    now.is_some_and(|now| now.list.source() == Some(source))
                }),
            });
            (named.name.clone(), replaced)
        });
        reloaded.collect()
    }

    /// The lists of networks: their names, their standing, and the lists.
    pub fn lists(&self) -> Vec<(String, Standing, NetworkList)> {
        let now = self.0.current.load();
        let lists = now.lists.values();
        lists
            .map(|named| (named.name.clone(), named.standing, named.list.clone()))
            .collect()
    }

    /// The list `name` is `list` from now on, if what it is now is `still` what it was.
    fn put(
        &self,
        name: &str,
        standing: Standing,
        list: NetworkList,
        path: &Path,
        still: impl FnOnce(Option<&NamedList>) -> bool,
    ) -> Result<usize, FileError> {
        let (networks, passed_over, format) = (list.len(), list.passed_over(), list.format());
        let replaced = self.change(|change| match still(change.named_list(name)) {
            true => change.list(name, standing, list),
            false => Ok(()),
        });
        replaced.map_err(|error| FileError::Rules {
            path: path.to_owned(),
            error,
        })?;
        let format = format.map(tracing::field::display);
        tracing::info!(list = name, networks, passed_over, format, path = %path.display(), "list replaced");
        Ok(networks)
    }
}
