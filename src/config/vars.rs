//! Reading the environment: which variables there are, and no others of ours.

use std::ffi::{OsStr, OsString};

use super::said::{HIDDEN, Origin, Said, Secret, Text, redacted};
use super::{Config, Setting};
use crate::error::ConfigError;
use crate::instance::escaped;

pub(super) const REGISTRY: &str = "HEREABOUTS_REGISTRY";
pub(super) const MICRO_REGISTRY: &str = "MICRO_REGISTRY";
pub(super) const MICRO_ADDRESS: &str = "MICRO_REGISTRY_ADDRESS";
pub(super) const ETCD_USERNAME: &str = "ETCD_USERNAME";
pub(super) const ETCD_PASSWORD: &str = "ETCD_PASSWORD";
pub(super) const ETCD_PASSWORD_FILE: &str = "ETCD_PASSWORD_FILE";

/// Ours, each with what it sets.
const OURS: [(&str, Setting); 6] = [
    (REGISTRY, Setting::Registry),
    ("HEREABOUTS_REGISTRY_ADDRESS", Setting::RegistryAddress),
    ("HEREABOUTS_NAMESPACE", Setting::Namespace),
    ("HEREABOUTS_ADVERTISE", Setting::Advertise),
    ("HEREABOUTS_INTERFACES", Setting::Interfaces),
    ("HEREABOUTS_TTL", Setting::Ttl),
];
const OUR_PREFIX: &str = "HEREABOUTS_";

/// Takes each variable that is ours or that we share into `config`; the others are not looked at.
pub(super) fn read(
    config: &mut Config,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    for (name, value) in variables {
        let name = name.to_string_lossy();
        if let Some((name, setting)) = OURS.iter().find(|(ours, _)| *ours == name) {
            config.layers(*setting).variable = text(name, &value)?;
            continue;
        }
        match &*name {
            MICRO_REGISTRY => config.micro_registry = text(MICRO_REGISTRY, &value)?,
            MICRO_ADDRESS => config.micro_address = text(MICRO_ADDRESS, &value)?,
            // Not trimmed: a password is what it is.
            ETCD_USERNAME => {
                config.username = exact(ETCD_USERNAME, &value)?.map(|user| said(ETCD_USERNAME, user))
            }
            ETCD_PASSWORD => {
                let password = exact(ETCD_PASSWORD, &value)?;
                config.password = password.map(|password| said(ETCD_PASSWORD, Secret::Text(password)));
            }
            ETCD_PASSWORD_FILE => {
                let file = exact(ETCD_PASSWORD_FILE, &value)?;
                config.password_file = file.map(|file| said(ETCD_PASSWORD_FILE, Secret::File(file)));
            }
            name if is_service_link(name) => {}
            name if name.starts_with(OUR_PREFIX) && !value.is_empty() => return Err(unknown(name, &value)),
            _ => {}
        }
    }
    Ok(())
}

/// Kubernetes sets these in every pod beside a Service that is called `hereabouts`.
fn is_service_link(name: &str) -> bool {
    let rest = name.strip_prefix(OUR_PREFIX).unwrap_or_default();
    let of_port = |rest: &str| rest == "PORT" || rest.starts_with("PORT_");
    of_port(rest)
        || rest
            .strip_prefix("SERVICE_")
            .is_some_and(|rest| rest == "HOST" || of_port(rest))
}

fn said<T>(name: &'static str, value: T) -> Said<T> {
    Said::new(value, Origin::Variable(name))
}

/// The trimmed value; an empty variable counts as unset.
fn text(name: &'static str, value: &OsStr) -> Result<Option<Said<Text>>, ConfigError> {
    let value = exact(name, value)?;
    Ok(value
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
        .map(|value| said(name, Text(value))))
}

fn exact(name: &'static str, value: &OsStr) -> Result<Option<String>, ConfigError> {
    match value.to_str() {
        Some("") => Ok(None),
        Some(value) => Ok(Some(value.to_owned())),
        None => {
            let shown = shown(name, value);
            Err(ConfigError::new(
                name,
                shown,
                "it is not UTF-8; write it in UTF-8",
            ))
        }
    }
}

fn unknown(name: &str, value: &OsStr) -> ConfigError {
    let upper = name.to_ascii_uppercase();
    let closest = OURS
        .iter()
        .min_by_key(|(ours, _)| edits(ours, &upper))
        .map_or(REGISTRY, |(ours, _)| ours);
    let names = OURS.map(|(ours, _)| ours).join(", ");
    let remedy = format!("there is no such variable; did you mean {closest}? There are {names}");
    ConfigError::new(escaped(name).to_string(), shown(name, value), remedy)
}

/// The value for an error, unless the name says that it is a secret.
fn shown(name: &str, value: &OsStr) -> String {
    let name = name.to_ascii_uppercase();
    if ["PASS", "SECRET", "TOKEN", "CREDENTIAL"]
        .iter()
        .any(|word| name.contains(word))
    {
        return HIDDEN.to_owned();
    }
    redacted(&value.to_string_lossy())
}

/// How many letters to insert, delete or change to make `b` of `a` (Levenshtein's distance).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (line, from) in a.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        for (to, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let cost = (diagonal + usize::from(from != *to))
                .min(left + 1)
                .min(*above + 1);
            diagonal = std::mem::replace(above, cost);
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str, value: &str) -> String {
        Config::from_vars([(name, value)]).unwrap_err().to_string()
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_of_our_name_is_not_ours() {
        for name in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTP",
            "PORT",
            "PORT_80_TCP_ADDR",
        ] {
            let name = format!("HEREABOUTS_{name}");
            assert!(
                Config::from_vars([(name.as_str(), "tcp://10.0.0.1:80")]).is_ok(),
                "{name}"
            );
        }
        assert!(Config::from_vars([("HEREABOUTS_SERVICE", "x")]).is_err());
    }

    #[test]
    fn an_unknown_variable_of_ours_is_named_with_the_closest_known_one() {
        for (name, closest) in [
            ("HEREABOUTS_REGISTY", "HEREABOUTS_REGISTRY"),
            ("HEREABOUTS_REGISTRY_ADDRESSES", "HEREABOUTS_REGISTRY_ADDRESS"),
            ("HEREABOUTS_INTERFACE", "HEREABOUTS_INTERFACES"),
            ("HEREABOUTS_NAME_SPACE", "HEREABOUTS_NAMESPACE"),
            ("HEREABOUTS_TLS", "HEREABOUTS_TTL"),
            ("HEREABOUTS_advertise", "HEREABOUTS_ADVERTISE"),
        ] {
            let error = error(name, "x");
            let begins =
                format!("{name} is \"x\": there is no such variable; did you mean {closest}? There are");
            assert!(error.starts_with(&begins), "{error}");
        }
        assert!(!error("HEREABOUTS_PASSWORD", "hunter2").contains("hunter2"));
        assert!(error("HEREABOUTS_\u{1b}", "\u{1b}").starts_with(r#"HEREABOUTS_\u{1b} is "\u{1b}""#));
    }

    #[test]
    fn what_is_not_ours_or_empty_is_left_alone() {
        let config = Config::from_vars([
            ("PATH", "/bin"),
            ("HEREABOUTS", "x"),
            ("MICRO_SELECTOR", "x"),
            ("HEREABOUTS_UNKNOWN", ""),
            ("HEREABOUTS_REGISTRY", ""),
            ("HEREABOUTS_TTL", "  "),
            ("MICRO_REGISTRY", ""),
            ("ETCD_PASSWORD", ""),
        ])
        .unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::new()));
    }

    #[cfg(unix)]
    #[test]
    fn values_are_utf8() {
        use std::os::unix::ffi::OsStringExt;
        let bad = || OsString::from_vec(vec![b'a', 0xff]);
        for name in ["HEREABOUTS_NAMESPACE", "MICRO_REGISTRY", "ETCD_USERNAME"] {
            let error = Config::from_vars([(OsString::from(name), bad())]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{name} is \"a\u{fffd}\": it is not UTF-8; write it in UTF-8")
            );
        }
        let error = Config::from_vars([(OsString::from("ETCD_PASSWORD"), bad())]).unwrap_err();
        assert_eq!(error.value(), "***");
        assert!(Config::from_vars([(OsString::from("OTHER"), bad()), (bad(), bad())]).is_ok());
    }

    #[test]
    fn distances() {
        for (a, b, distance) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(edits(a, b), distance);
        }
    }
}
