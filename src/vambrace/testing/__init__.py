"""The conformance kit for plug-ins, with toy and hostile models to test tools on."""
