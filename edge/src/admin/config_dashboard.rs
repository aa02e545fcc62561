//! Who may sign in to the dashboard without a token.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::problem::Problem;
use super::roles::Role;

/// A plan for more people than this wants another store.
const MAX_MEMBERS: usize = 5_000;
const MAX_MAIL_BYTES: usize = 254;

/// The dashboard's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DashboardSettings {
    /// Roles by mail address in lower case, of those who come through Cloudflare Access or an OpenID provider. `admin`,
    /// `finance`, `developer` or `auditor`; or an object with `role` and, for a developer, the `owner` whose keys,
    /// requests, budgets and alerts they see: their own address where it is absent. Who is taken away here is signed out
    /// at once.
    #[cfg_attr(test, schemars(with = "BTreeMap<String, MemberShape>"))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<String, Member>,
    /// A key's secret is due for a new one after so many days, 1 to 3,650. Default: 90.
    #[serde(skip_serializing_if = "is_usual")]
    pub rotate_keys_after_days: u32,
}

const ROTATE_AFTER_DAYS: u32 = 90;

fn is_usual(days: &u32) -> bool {
    *days == ROTATE_AFTER_DAYS
}

impl Default for DashboardSettings {
    fn default() -> Self {
        Self { members: BTreeMap::new(), rotate_keys_after_days: ROTATE_AFTER_DAYS }
    }
}

/// A member: their role, and whose rows they see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What they may do.
    pub role: Role,
    /// Whose rows a developer sees, where it is not their own address.
    pub owner: Option<String>,
}

impl Member {
    /// The owner whose rows this member sees; `None` for everybody's.
    pub fn owner(&self, mail: &str) -> Option<String> {
        let own = || self.owner.clone().unwrap_or_else(|| mail.to_owned());
        (self.role == Role::Developer).then(own)
    }
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct MemberTerms {
    role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

/// How a member is written.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum MemberShape {
    Role(Role),
    Terms(MemberTerms),
}

impl Serialize for Member {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.owner {
            None => self.role.serialize(serializer),
            owner => MemberTerms { role: self.role, owner: owner.clone() }.serialize(serializer),
        }
    }
}

/// By hand, so that a mistake within is named and not answered with "did not match any variant".
impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RoleOrTerms;

        impl<'de> Visitor<'de> for RoleOrTerms {
            type Value = Member;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a role, or an object with `role` and `owner`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Member, E> {
                let role = Role::deserialize(de::value::StrDeserializer::new(name))?;
                Ok(Member { role, owner: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Member, A::Error> {
                let terms = MemberTerms::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Member { role: terms.role, owner: terms.owner })
            }
        }

        deserializer.deserialize_any(RoleOrTerms)
    }
}

impl DashboardSettings {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Every address is one, and every role can be given.
    pub(super) fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(1..=3_650).contains(&self.rotate_keys_after_days) {
            let field = "dashboard.rotate_keys_after_days";
            problems.push(Problem::field(field, "is out of range", "Give 1 to 3650."));
        }
        if self.members.len() > MAX_MEMBERS {
            let remedy = "Keep 5,000 at most.";
            problems.push(Problem::field("dashboard.members", "has too many entries", remedy));
        }
        for (mail, member) in &self.members {
            let field = format!("dashboard.members.{mail}");
            let (name, domain) = mail.split_once('@').unwrap_or_default();
            let plain =
                mail.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
            if name.is_empty()
                || domain.is_empty()
                || domain.contains('@')
                || !plain
                || mail.len() > MAX_MAIL_BYTES
            {
                let remedy = "Give an address in lower case, such as ann@example.com.";
                problems.push(Problem::field(&field, "is not a mail address", remedy));
            }
            if matches!(member.role, Role::Operator | Role::Reconciler) {
                let remedy = "Use admin, finance, developer or auditor.";
                problems.push(Problem::field(&field, "cannot have this role", remedy));
            }
            if let Some(owner) = &member.owner {
                problems.extend(check_owner(&format!("{field}.owner"), owner, member.role).err());
            }
        }
        problems
    }
}

/// Whether an owner can be given to this role.
pub fn check_owner(field: &str, owner: &str, role: Role) -> Result<(), Problem> {
    if role != Role::Developer {
        let remedy = "Leave it out, or make the role developer.";
        return Err(Problem::field(field, "is for developers: others see every row", remedy));
    }
    super::check_text(field, owner)
}
