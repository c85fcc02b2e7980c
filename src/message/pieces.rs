//! Bytes that are not in one place yet: what is large is copied once, to where it goes.

use std::borrow::Cow;

/// Pieces that follow each other without a gap.
#[derive(Clone, Debug, Default)]
pub struct Pieces<'a> {
    list: Vec<Cow<'a, [u8]>>,
    len: usize,
}

impl<'a> Pieces<'a> {
    /// Bytes in one piece.
    pub fn of(bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        let mut pieces = Pieces::default();
        pieces.push(bytes);
        pieces
    }

    /// Adds a piece at the end.
    pub fn push(&mut self, bytes: impl Into<Cow<'a, [u8]>>) {
        let bytes = bytes.into();
        self.len += bytes.len();
        if !bytes.is_empty() {
            self.list.push(bytes);
        }
    }

    /// Adds pieces at the end.
    pub fn append(&mut self, mut more: Pieces<'a>) {
        self.len += more.len;
        self.list.append(&mut more.list);
    }

    /// Bytes of all pieces.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Each piece with its place among all bytes.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.list.iter().scan(0, |end, piece| {
            let at = *end;
            *end += piece.len();
            Some((at, &**piece))
        })
    }

    /// All bytes in one place; copied there only if they were in several.
    pub fn into_bytes(mut self) -> Cow<'a, [u8]> {
        match self.list.len() {
            0 => Cow::Borrowed(&[]),
            1 => self.list.swap_remove(0),
            _ => Cow::Owned(self.list.concat()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_each_other() {
        let mut pieces = Pieces::of(&b"ab"[..]);
        pieces.push(Vec::new());
        pieces.append(Pieces::of(b"cde".to_vec()));
        assert_eq!(pieces.len(), 5);
        assert_eq!(pieces.iter().collect::<Vec<_>>(), [(0, &b"ab"[..]), (2, b"cde")]);
        assert_eq!(*pieces.into_bytes(), *b"abcde");
        assert!(matches!(Pieces::of(&b"ab"[..]).into_bytes(), Cow::Borrowed(b"ab")));
        assert_eq!(Pieces::default().into_bytes().len(), 0);
    }
}
