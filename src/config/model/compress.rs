//! What is compressed.

/// Which answers are compressed for clients that take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// Their media types.
    pub types: Vec<MediaPattern>,
    /// The shortest that is worth it, in octets; one of unknown length is.
    pub min_size: u64,
}

/// `text/html`, `text/*` or `application/*+json`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPattern {
    /// The whole, or what stands before the asterisk.
    pub before: String,
    /// What stands behind it, where there is one.
    pub behind: Option<String>,
}

impl MediaPattern {
    /// Whether a media type without parameters is meant, whatever its case.
    pub fn matches(&self, kind: &[u8]) -> bool {
        let Some(behind) = &self.behind else { return kind.eq_ignore_ascii_case(self.before.as_bytes()) };
        let (before, behind) = (self.before.as_bytes(), behind.as_bytes());
        let end = kind.len().checked_sub(behind.len()).filter(|end| *end >= before.len());
        end.is_some_and(|end| {
            let (start, rest) = (kind.get(..before.len()), kind.get(end..));
            start.is_some_and(|start| start.eq_ignore_ascii_case(before))
                && rest.is_some_and(|rest| rest.eq_ignore_ascii_case(behind))
        })
    }
}
