//! A value and where it was said. The first of code, flag and variable that speaks is heard.

use std::fmt;

use crate::error::ConfigError;
use crate::instance::escaped;

/// Where a value was said.
///
/// `Display` names it as errors and logs do: `HEREABOUTS_REGISTRY`, `--registry`,
/// `Config::with_registry`, `URL in HEREABOUTS_REGISTRY`, `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// In the program's code, by this call on [`Config`](super::Config): `with_registry`.
    Code(&'static str),
    /// On the command line, by this flag: `--registry`.
    Flag(String),
    /// In the environment, by this variable.
    Variable(&'static str),
    /// In the registry's URL, which was itself said somewhere.
    Url(Box<Self>),
    /// Nowhere.
    Default,
}

/// A value and where it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said<T> {
    value: T,
    origin: Origin,
}

/// Text as it was given, which may hold a password: showing it leaves that out.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

/// A password, which nothing shows, or the name of the file that holds it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Secret {
    Text(String),
    File(String),
}

/// What was said about one setting, by who has precedence.
#[derive(Clone, Debug, Default)]
pub(super) struct Layers {
    pub(super) code: Option<Said<Text>>,
    pub(super) flag: Option<Said<Text>>,
    pub(super) variable: Option<Said<Text>>,
}

impl Origin {
    /// The call, flag or variable behind it: for what was said in a URL, who gave the URL.
    #[must_use]
    pub fn source(&self) -> &Self {
        match self {
            Self::Url(by) => by.source(),
            other => other,
        }
    }

    /// Who is heard: the greater one.
    fn rank(&self) -> u8 {
        match self.source() {
            Self::Code(_) => 3,
            Self::Flag(_) => 2,
            Self::Variable(_) => 1,
            Self::Url(_) | Self::Default => 0,
        }
    }

    /// What was said in the URL that this gave.
    pub(super) fn url(&self) -> Self {
        Self::Url(Box::new(self.clone()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(call) => write!(f, "Config::{call}"),
            Self::Flag(flag) => escaped(flag).fmt(f),
            Self::Variable(name) => f.write_str(name),
            Self::Url(by) => write!(f, "URL in {by}"),
            Self::Default => f.write_str("default"),
        }
    }
}

impl<T> Said<T> {
    pub(super) fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }

    pub(super) fn default(value: T) -> Self {
        Self::new(value, Origin::Default)
    }

    /// What was said.
    #[must_use]
    pub fn value(&self) -> &T {
        &self.value
    }

    /// Where it was said.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// As logs say it: `team-a (HEREABOUTS_NAMESPACE)`.
impl<T: fmt::Display> fmt::Display for Said<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.value, self.origin)
    }
}

impl Said<Text> {
    pub(super) fn text(&self) -> &str {
        &self.value.0
    }

    /// Parses it; the parser answers what would be right.
    pub(super) fn read<T>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Said<T>, ConfigError> {
        match parse(self.text()) {
            Ok(value) => Ok(Said::new(value, self.origin.clone())),
            Err(remedy) => Err(self.wrong(remedy)),
        }
    }

    pub(super) fn wrong(&self, remedy: impl Into<String>) -> ConfigError {
        ConfigError::new(self.origin.to_string(), redacted(self.text()), remedy)
    }
}

impl Layers {
    /// What code or a flag says.
    pub(super) fn explicit(&self) -> Option<&Said<Text>> {
        self.code.as_ref().or(self.flag.as_ref())
    }

    pub(super) fn heard(&self) -> Option<&Said<Text>> {
        self.explicit().or(self.variable.as_ref())
    }
}

/// Which of the two forms of one setting is heard, the separate one or that in the URL: who has
/// precedence; among equals they must say the same.
pub(super) fn merge<T: PartialEq>(
    separate: Option<Said<T>>,
    in_url: Option<Said<T>>,
    show: impl Fn(&T) -> String,
) -> Result<Option<Said<T>>, ConfigError> {
    let (separate, in_url) = match (separate, in_url) {
        (Some(separate), Some(in_url)) => (separate, in_url),
        (one, other) => return Ok(one.or(other)),
    };
    let (mine, others) = (separate.origin.rank(), in_url.origin.rank());
    if mine == others && separate.value != in_url.value {
        let remedy = format!(
            "the {} says \"{}\"; say it in one of the two places only",
            in_url.origin,
            show(&in_url.value)
        );
        let value = show(&separate.value);
        return Err(ConfigError::new(separate.origin.to_string(), value, remedy));
    }
    Ok(Some(if mine >= others { separate } else { in_url }))
}

/// `text` without what stands before an `@`, except a plain user of etcd, and without the values of
/// URL keys that no scheme knows. It hides rather too much, since what can't be parsed is shown too.
pub(super) fn redacted(text: &str) -> String {
    if text.starts_with("static:") {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut rest = text;
    if let Some((before, after)) = text.rsplit_once('@') {
        let is_scheme = |scheme: &str| scheme.chars().all(|c| c.is_ascii_alphanumeric());
        let (scheme, user) = match before.split_once("://") {
            Some((scheme, user)) if is_scheme(scheme) => (scheme, user),
            _ => ("", before),
        };
        if !scheme.is_empty() {
            shown.extend([scheme, "://"]);
        }
        let known = matches!(scheme.to_ascii_lowercase().as_str(), "etcd" | "etcds");
        let secret = |c| matches!(c, ':' | '/' | '?' | '#' | '@');
        match user.find(secret) {
            None if known => shown.push_str(user),
            Some(end) if known => shown.extend([&user[..=end], HIDDEN]),
            _ => shown.push_str(HIDDEN),
        }
        shown.push('@');
        rest = after;
    }
    let Some((before, query)) = rest.split_once('?') else {
        shown.push_str(rest);
        return shown;
    };
    shown.push_str(before);
    for (position, pair) in query.split('&').enumerate() {
        shown.push(if position == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((key, _)) if !super::url::KEYS.contains(&key) => shown.extend([key, "=", HIDDEN]),
            _ => shown.push_str(pair),
        }
    }
    shown
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escaped(&redacted(&self.0)).fmt(f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str(HIDDEN),
            Self::File(file) => write!(f, "in {}", escaped(file)),
        }
    }
}

pub(super) const HIDDEN: &str = "***";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (text, shown) in [
            ("mdns", "mdns"),
            ("etcd://h:2379/a?ttl=15s", "etcd://h:2379/a?ttl=15s"),
            ("etcd://u:p@h", "etcd://u:***@h"),
            ("etcd://u:p/?#@@h1,h2", "etcd://u:***@h2"),
            ("etcd://u:p@h1,u:p@h2", "etcd://u:***@h2"),
            ("etcd:u:p@h", "***@h"),
            ("u:p@h:2379", "***@h:2379"),
            ("etdc://u:p@h", "etdc://***@h"),
            ("etcd://h?password=p@", "etcd://h?***@"),
            ("etcd://u@h", "etcd://u@h"),
            ("etcd://h?password=p&ca=/x", "etcd://h?password=***&ca=/x"),
            ("static:a@b=h:1", "static:a@b=h:1"),
        ] {
            let expected = shown.replace("h2", if text.contains("h1,h2") { "h1,h2" } else { "h2" });
            assert_eq!(redacted(text), expected, "{text}");
        }
        let said = Said::new(Text("etcd://u:p@h".into()), Origin::Flag("--registry".into()));
        assert!(!format!("{said:?} {:?}", Secret::Text("p".into())).contains(":p"));
    }

    #[test]
    fn precedence_decides_and_equals_must_agree() {
        let said = |value, origin| Some(Said::new(value, origin));
        let variable = Origin::Variable("V");
        let show = |value: &i32| value.to_string();
        let heard = |separate, in_url| merge(separate, in_url, show).map(|said| said.map(|said| said.value));
        assert_eq!(heard(None, None), Ok(None));
        assert_eq!(heard(said(1, variable.clone()), None), Ok(Some(1)));
        assert_eq!(heard(None, said(2, variable.url())), Ok(Some(2)));
        let code = Origin::Code("with_x");
        assert_eq!(heard(said(1, code.clone()), said(2, variable.url())), Ok(Some(1)));
        assert_eq!(heard(said(1, variable.clone()), said(2, code.url())), Ok(Some(2)));
        assert_eq!(
            heard(said(1, variable.clone()), said(1, variable.url())),
            Ok(Some(1))
        );
        let error = heard(said(1, variable.clone()), said(2, Origin::Variable("W").url())).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"V is "1": the URL in W says "2"; say it in one of the two places only"#
        );
    }
}
