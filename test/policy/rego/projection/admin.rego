package helpers.chosen.admin

fact := input.attributes.source.principal
