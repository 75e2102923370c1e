package helpers.chosen.api

fact := input.attributes.request.http.host
