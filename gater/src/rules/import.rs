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
        self.put(name, list, path, |_| Some(standing))
    }

    /// Reads the files of all lists again, as after a download: each list that has changed is
    /// replaced as a whole. For each list that is a file: its name, and how many networks it has now,
    /// or why it stays as it was. One that cannot be read keeps no other from being replaced.
    ///
    /// Another thread may change the lists meanwhile: a list that it has replaced or dropped stays
    /// as it left it, with 0 networks if it has dropped it, and a changed standing stays changed.
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
                // No connection is judged again for a list that says the same.
                true => Ok(self
                    .0
                    .current
                    .load()
                    .lists
                    .get(&named.name)
                    .map_or(0, |now| now.list.len())),
                // Unless it has been replaced or dropped meanwhile.
                false => self.put(&named.name, list, &source.path, |now| {
                    let same = now.filter(|now| now.list.source() == Some(source));
                    same.map(|now| now.standing)
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

    /// Makes `list` the list `name`, of the standing that `standing` says for what it is now; `None`
    /// leaves it as it is. How many networks it has then.
    fn put(
        &self,
        name: &str,
        list: NetworkList,
        path: &Path,
        standing: impl FnOnce(Option<&NamedList>) -> Option<Standing>,
    ) -> Result<usize, FileError> {
        let (networks, passed_over, format) = (list.len(), list.passed_over(), list.format());
        let replaced = self.change(|change| {
            let now = change.named_list(name);
            match standing(now) {
                Some(standing) => change.list(name, standing, list).map(|()| None),
                None => Ok(Some(now.map_or(0, |now| now.list.len()))),
            }
        });
        let left = replaced.map_err(|error| FileError::Rules {
            path: path.to_owned(),
            error,
        })?;
        if let Some(networks) = left {
            return Ok(networks);
        }
        let format = format.map(tracing::field::display);
        tracing::info!(list = name, networks, passed_over, format, path = %path.display(), "list replaced");
        Ok(networks)
    }
}
