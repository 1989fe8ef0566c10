{{ config(materialized='view') }}
SELECT id, mood FROM {{ ref('moods') }} WHERE outcome = 'ok'
