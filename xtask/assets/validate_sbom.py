"""Checks an SBOM by CycloneDX's own schema: `cargo xtask sbom --validate`."""

import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(pathlib.Path(sys.argv[1]).read_text())
if problem:
    sys.exit(f"{sys.argv[1]} is not CycloneDX 1.6: {problem}")
print(f"{sys.argv[1]} is valid CycloneDX 1.6")
